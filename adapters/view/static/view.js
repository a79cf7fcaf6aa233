// Keys and the version slider. Every page works without this file.

const find = document.getElementById("find");
const slider = document.querySelector(".time input[type=range]");
const turns = [...document.querySelectorAll(".turn")];

// The turn whose head is nearest to the top of the window.
function current() {
  let index = 0;
  turns.forEach((turn, number) => {
    if (turn.getBoundingClientRect().top <= 8) index = number;
  });
  return index;
}

function show(index) {
  turns[Math.max(0, Math.min(turns.length - 1, index))]?.scrollIntoView();
}

function step(by) {
  if (!slider) return;
  slider.value = Number(slider.value) + by;
  slider.form.requestSubmit();
}

const keys = {
  "/": () => find.focus(),
  j: () => show(current() + 1),
  k: () => show(current() - 1),
  "[": () => step(-1),
  "]": () => step(1),
  o: () => {
    const all = [...document.querySelectorAll(".talk details")];
    const open = all.some((details) => !details.open);
    for (const details of all) details.open = open;
  },
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const run = keys[event.key];
  if (run) {
    event.preventDefault();
    run();
  }
});

if (slider) {
  // Items of later versions are hidden at once; letting go of the slider loads that version.
  slider.addEventListener("input", () => {
    const version = Number(slider.value);
    for (const item of document.querySelectorAll("[data-since]")) {
      item.hidden = Number(item.dataset.since) > version;
    }
  });
  slider.addEventListener("change", () => slider.form.requestSubmit());
}
