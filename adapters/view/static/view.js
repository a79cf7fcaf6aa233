// What the pages do by themselves: keys, versions, turns that are loaded while one scrolls, new events.
// Every page can be read without this file.

const html = document.documentElement;
html.classList.add("js");
const policy = window.trustedTypes?.createPolicy("view", { createHTML: (text) => text });
const $ = (selector, under = document) => under.querySelector(selector);
const $$ = (selector, under = document) => [...under.querySelectorAll(selector)];

// -- parts of pages ----------------------------------------------------------------------------

async function fetched(address, signal) {
  const answer = await fetch(address, { signal });
  if (!answer.ok) throw new Error(`${answer.status}`);
  const parsed = document.createElement("template");
  const text = await answer.text();
  parsed.innerHTML = policy ? policy.createHTML(text) : text;
  return parsed.content;
}

let loading;

// Show another state of the same page in place, and keep the place that one reads.
async function show(address, { push = true, keep = true } = {}) {
  loading?.abort();
  loading = new AbortController();
  let found;
  try {
    found = await fetched(address, loading.signal);
  } catch (error) {
    if (error.name !== "AbortError") location.assign(address);
    return;
  }
  const open = new Set($$("details[open]").map((each) => $(".item, [id]", each)?.id ?? each.closest(".item")?.id));
  const place = scrollY;
  const turn = atTop();
  const outline = $(".outline")?.scrollTop;
  $("main").replaceWith($("main", found));
  const time = $(".time", found);
  if (time && $(".time")) $(".time").replaceWith(time);
  for (const each of $$("details")) {
    const id = $(".item, [id]", each)?.id ?? each.closest(".item")?.id;
    if (id && open.has(id)) each.open = true;
  }
  if (push) history.replaceState(null, "", address.replace("&whole=1", ""));
  if (keep) scrollTo({ top: place, behavior: "instant" });
  if (keep && place && turn?.top < 100) hold(turn);
  if (outline) $(".outline").scrollTop = outline;
  ready();
}

// -- turns and outline -------------------------------------------------------------------------

const MOST_ITEMS = 1000;

async function more(link) {
  const side = link.parentElement;
  const isEarlier = side.classList.contains("earlier");
  const address = link.dataset.fetch;
  delete link.dataset.fetch;
  if (!address) return;
  const part = await fetched(address);
  const turn = atTop();
  $(isEarlier ? ".pages.later" : ".pages.earlier", part)?.remove();
  side.replaceWith(part);
  if (isEarlier && turn) hold(turn);
  drop(isEarlier);
  watch();
}

// Take away the turns that are farthest from the ones that were just loaded.
function drop(atEnd) {
  const turns = $("#turns");
  const sections = $$(":scope > .turn", turns);
  let count = $$(".item", turns).length;
  while (count > MOST_ITEMS && sections.length > 2) {
    const last = atEnd ? sections.pop() : sections.shift();
    count -= $$(".item", last).length;
    const height = turns.scrollHeight;
    last.remove();
    if (!atEnd) scrollBy({ top: turns.scrollHeight - height, behavior: "instant" });
    const side = $(atEnd ? ".pages.later" : ".pages.earlier", turns);
    const edge = (atEnd ? sections.at(-1) : sections[0]).id.slice(1);
    const link = $("a", side);
    const address = new URL("/session/window" + new URL(link.href).search, location.origin);
    for (const name of ["around", "before", "after"]) address.searchParams.delete(name);
    address.searchParams.set(atEnd ? "after" : "before", edge);
    link.dataset.fetch = address.pathname + address.search;
    side.hidden = false;
  }
}

const edges = new IntersectionObserver(
  (entries) => entries.filter((each) => each.isIntersecting).forEach((each) => more(each.target)),
  { rootMargin: "600px" },
);

function watch() {
  edges.disconnect();
  for (const link of $$("#turns > .pages:not([hidden]) > a[data-fetch]")) edges.observe(link);
}

async function unfold(link) {
  const rows = $(".rows", await fetched(link.dataset.fetch));
  link.closest("li").replaceWith(...rows.children);
}

const turns = () => $$("#turns > .turn");
const forks = () => $$("#turns > .fork");

// The turn that one reads, and where it is.
function atTop() {
  const turn = turns().find((each) => each.getBoundingClientRect().bottom > 0);
  return turn && { id: turn.id, top: turn.getBoundingClientRect().top };
}

// Keep a turn where it is. Turns above it get their height when they come near, so one step is not enough.
function hold({ id, top }, steps = 4) {
  const turn = document.getElementById(id);
  if (turn) scrollBy({ top: turn.getBoundingClientRect().top - top, behavior: "instant" });
  if (turn && steps) requestAnimationFrame(() => hold({ id, top }, steps - 1));
}

function current(all) {
  let index = -1;
  all.forEach((each, number) => {
    if (each.getBoundingClientRect().top <= 12) index = number;
  });
  return index;
}

function to(all, by) {
  const place = current(all);
  const target = all[Math.max(0, Math.min(all.length - 1, place + by))];
  target?.scrollIntoView({ block: "start" });
}

// -- versions ----------------------------------------------------------------------------------

const slider = () => $(".time input[type=range]");
let asking;
let player;

// Items of other versions hide and show at once; the version itself is loaded when the slider is let go.
function travel(version) {
  const isThere = ({ dataset: { since, until } }) => Number(since) <= version && (!until || version < Number(until));
  for (const each of $$("[data-since]")) each.hidden = Number(each.dataset.since) > version || (!each.closest(".gone") && !isThere(each));
  for (const group of $$(".gone")) {
    // What was removed later is shown as it was: without the line that says so.
    const then = $$(".item", group).some(isThere);
    group.classList.toggle("then", then);
    if (then) group.open = true;
    if (then) for (const each of $$("[data-since]", group)) each.hidden = !isThere(each);
    group.hidden = !$(".item:not([hidden])", group);
  }
  clearTimeout(asking);
  asking = setTimeout(() => say(version), 80);
}

async function say(version) {
  const input = slider();
  const found = await (await fetch(`${input.dataset.at}&v=${version}`)).json();
  if (Number(input.value) !== version) return;
  const time = found.event ? found.event.time.slice(11, 16) : "";
  $("#sentence").textContent = `v${version} ${time} ${found.sentence}`;
  input.setAttribute("aria-valuetext", `version ${version}, ${found.sentence}`);
}

function addressOf(version) {
  const { session, branch, last } = $(".session").dataset;
  const address = new URL("/session", location.origin);
  address.searchParams.set("id", session);
  address.searchParams.set("branch", branch);
  const around = new URLSearchParams(location.search).get("around");
  if (around) address.searchParams.set("around", around);
  if (version < Number(last)) address.searchParams.set("v", version);
  return address.pathname + address.search;
}

function step(by) {
  const input = slider();
  if (!input) return undefined;
  const version = Math.max(0, Math.min(Number(input.max), Number(input.value) + by));
  input.value = version;
  travel(version);
  return show(addressOf(version));
}

function play() {
  const button = $("#play");
  if (player) {
    clearInterval(player);
    player = undefined;
  } else {
    if (Number(slider().value) === Number(slider().max)) step(-Number(slider().max));
    player = setInterval(() => {
      const input = slider();
      if (!input || Number(input.value) >= Number(input.max)) play();
      else step(1);
    }, 700);
  }
  button?.setAttribute("aria-pressed", String(Boolean(player)));
}

// -- new events --------------------------------------------------------------------------------

let stream;

function follow() {
  stream?.close();
  stream = undefined;
  const page = $(".session");
  if (!page || document.hidden || page.dataset.version !== page.dataset.last) return;
  const query = new URLSearchParams({ id: page.dataset.session, after: page.dataset.last });
  stream = new EventSource(`/session/live?${query}`);
  stream.addEventListener("appended", (event) => {
    page.dataset.last = event.lastEventId;
    clearTimeout(refresh);
    refresh = setTimeout(refreshed, 150);
  });
}

let refresh;

async function refreshed() {
  const bottom = $("#turns").getBoundingClientRect().bottom;
  const atEnd = $(".pages.later").hidden && bottom > 0 && bottom < innerHeight + 120;
  const address = new URL(location);
  address.hash = "";
  address.searchParams.set("whole", 1);
  if (atEnd) address.searchParams.delete("around");
  else address.searchParams.set("around", (atTop() ?? turns().at(-1))?.id.slice(1) ?? "");
  stream?.close();
  await show(address.href, { push: false });
  if (atEnd) toEnd();
}

addEventListener("visibilitychange", follow);
addEventListener("pagehide", () => stream?.close());

// -- what each page gets -----------------------------------------------------------------------

async function prove(button) {
  const bar = $("progress");
  const words = $("#proving");
  button.disabled = true;
  bar.hidden = false;
  const lines = (await fetch(button.dataset.verify)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await lines.read(); !part.done; part = await lines.read()) {
    const found = (rest + part.value).split("\n");
    rest = found.pop();
    for (const line of found) {
      const { kind, events, head } = JSON.parse(line);
      if (kind !== "proving") continue;
      bar.value = head ? Math.min(1, events / head) : 1;
      words.textContent = `${events.toLocaleString("en")} events`;
    }
  }
  location.assign("/health");
}

let opened = false;

function ready() {
  watch();
  follow();
  for (const place of $$("[data-part]")) fetched(place.dataset.part).then((part) => place.replaceWith(part), () => {});
  const page = $(".session");
  const plain = $("#plain");
  if (plain) {
    plain.checked = html.dataset.plain === "1";
    $(".talk").classList.toggle("plainly", plain.checked);
  }
  if ($("#show")) $("#show").hidden = matchMedia("(max-width: 1150px)").matches;
  if (page?.dataset.later) show(page.dataset.later, { keep: false }).then(end);
  else if (!opened && $(".pages.earlier:not([hidden])") && !/[?&](around|v)=/.test(location.search)) end();
  opened = true;
  for (const text of $$(".copy:not(:has(button))")) {
    const button = document.createElement("button");
    button.textContent = "Copy";
    const words = text.textContent;
    button.addEventListener("click", () => navigator.clipboard.writeText(words));
    text.append(" ", button);
  }
}

function end() {
  if (!location.hash) toEnd();
}

function toEnd(steps = 4) {
  $("#turns").scrollIntoView({ block: "end", behavior: "instant" });
  if (steps) requestAnimationFrame(() => toEnd(steps - 1));
}

// A link to an item that is not on the page leads to the turns around it.
function seek() {
  const found = /^#e(\d+)\.(\d+)$/.exec(location.hash);
  if (!found) return;
  const target = document.getElementById(location.hash.slice(1));
  if (!target) {
    location.replace(`/item/place?position=${found[1]}&index=${found[2]}`);
    return;
  }
  for (let each = target.closest("details"); each; each = each.parentElement.closest("details")) each.open = true;
  target.scrollIntoView({ block: "center" });
}

addEventListener("hashchange", seek);

document.addEventListener("click", (event) => {
  const gap = event.target.closest(".rows a[data-fetch]");
  if (gap) {
    event.preventDefault();
    unfold(gap);
  }
  const button = event.target.closest("[data-verify]");
  if (button) {
    event.preventDefault();
    prove(button);
  }
  if (event.target.closest("#play")) play();
});
document.addEventListener("input", (event) => {
  if (event.target === slider()) travel(Number(event.target.value));
});
document.addEventListener("change", (event) => {
  if (event.target === slider()) show(addressOf(Number(event.target.value)));
  if (event.target.id === "plain") {
    html.dataset.plain = event.target.checked ? "1" : "";
    $(".talk").classList.toggle("plainly", event.target.checked);
  }
});

let before;
const keys = {
  "/": () => $("#find").focus(),
  j: () => to(turns(), 1),
  k: () => to(turns(), -1),
  n: () => to(forks(), 1),
  N: () => to(forks(), -1),
  "[": () => step(-1),
  "]": () => step(1),
  p: () => slider() && play(),
  o: () => {
    const all = $$(".talk details, .sides details");
    const open = all.some((each) => !each.open);
    for (const each of all) each.open = open;
  },
  b: () => ($("#branches") ?? $(".chip a"))?.focus(),
  s: () => before === "g" && location.assign("/"),
  "?": () => $("#keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=range]), textarea, select, dialog[open]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const run = keys[event.key];
  if (run) {
    event.preventDefault();
    run();
  }
  before = event.key;
});

ready();
seek();
