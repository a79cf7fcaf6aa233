"""
Which request belongs to which run, agent, model and turn.

The SDK does not pass usage to a session. The Runner passes its run context with each call instead, and the
context holds one usage object, to which the SDK adds the usage of each response. From the first call on,
the session observes the usage object: when the SDK adds a request, the session records it in the
background, with the agent and the model that made it. An example: the session "talk", and an agent Desk
with a tool that runs an agent Expert, without a session of its own:

    call of the Runner, or answer       recorded in one transaction
    get_items()                         nothing: reads never write; the usage object is observed
    add_items([question])               the question; turn 1 starts
    (Desk answers: call the tool)       request 0: run r, turn 1, Desk and its model
    (Expert answers the tool)           request 1: run r, turn 1, Expert and its model
    add_items([call, its output])       the items
    (Desk answers)                      request 2: run r, turn 1, Desk and its model
    add_items([answer])                 the items

Run: the usage object identifies the run (see ``runs``); Expert's run shares that of Desk. If Expert had a
session of its own, that session would record request 1. Turn: the last turn of the current branch, when the
request is answered. The request stays recorded, with the trace id of the run, if the run fails then (a tool
raises, a guardrail trips, the task is cancelled).

Budgets: before each of these answers, the hooks read what is recorded, and raise if a budget is used up.

A request stays without an agent and a model if it was made before the session's first call, or if the
application has a usage class of its own. ``store_run_usage`` supplies them from the result.
"""
