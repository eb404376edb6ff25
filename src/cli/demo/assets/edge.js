// Shows what the edge says of this page: asks for it again and reads the answer's fields.
const panel = document.createElement("aside");
panel.id = "edge";
panel.setAttribute("aria-label", "What the edge said of this page");
panel.innerHTML = "<dl></dl><button type=button>Ask again</button>";
document.body.append(panel);

const rows = [
  ["cache", "cache-status"],
  ["age", "age"],
  ["via", "via"],
  ["origin answer", "x-origin-answer"],
];

async function ask() {
  const begun = performance.now();
  const answer = await fetch(location.pathname, { cache: "no-store" });
  await answer.arrayBuffer();
  const took = performance.now() - begun;
  const list = panel.querySelector("dl");
  list.replaceChildren();
  for (const [name, field] of [...rows, ["took", null]]) {
    const value = field ? answer.headers.get(field) : `${took.toFixed(1)} ms`;
    if (value === null) continue;
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.textContent = field === "age" ? `${value} s` : value;
    list.append(term, text);
  }
}

panel.querySelector("button").addEventListener("click", ask);
ask();
