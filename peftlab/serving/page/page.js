"use strict";
const WORDS = {
  en: {
    title: "Which label?", language: "Language", model: "Model", text: "Text", pair: "Second text", ask: "Ask",
    keys: "or Ctrl + Enter", words: "The words that mattered", token: "Access token", docs: "Addresses for programs",
    legend: "Each word was left out in turn: the stronger its colour, the more the probability of this answer changes "
      + "without it. Solid: it speaks for the answer; underlined with dots: against it.",
    about: card => `${card.task}, ${card.method}, ${card.labels.length} labels`,
    none: "no label", sure: "Sure enough to be used without a person.", unsure: "Not sure enough: a person should look.",
    unreachable: "The server does not answer.", needsToken: "This server asks for a token; open “Access token” below.",
    waiting: "…", found: "Entities in the text", count: number => (number === 1 ? "1 entity" : `${number} entities`),
  },
  zh: {
    title: "属于哪个标签？", language: "语言", model: "模型", text: "文本", pair: "第二段文本", ask: "预测",
    keys: "或按 Ctrl + Enter", words: "起作用的词", token: "访问令牌", docs: "程序接口地址",
    legend: "逐个去掉每个词再预测：颜色越深，去掉后该答案的概率变化越大。实色表示支持该答案，点状下划线表示反对。",
    about: card => `${card.task}，${card.method}，${card.labels.length} 个标签`,
    none: "没有标签", sure: "把握足够，可直接采用。", unsure: "把握不足，请人工查看。",
    unreachable: "服务器没有回应。", needsToken: "此服务器需要令牌，请打开下方的“访问令牌”。",
    waiting: "…", found: "文本中的实体", count: number => `${number} 个实体`,
  },
};
const SHOWN = 5;
const part = id => document.getElementById(id);
let words = WORDS.en, cards = [], asked = 0;

function keep(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(name);
    localStorage.setItem(name, value);
  } catch { /* storage is off: the choice lasts as long as the page */ }
  return null;
}

function speak(language) {
  words = WORDS[language];
  document.documentElement.lang = language;
  part("language").value = language;
  for (const place of document.querySelectorAll("[data-words]")) place.textContent = words[place.dataset.words];
  describe();
}

function describe() {
  const card = cards.find(one => one.name === part("model").value);
  part("about").textContent = card ? words.about(card) : "";
  part("second").hidden = !card?.pairs;
  part("pair").required = Boolean(card?.pairs);
}

async function fetched(path, body) {
  const token = part("token").value.trim();
  const headers = token ? {Authorization: `Bearer ${token}`} : {};
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body)})
    .catch(() => { throw new Error(words.unreachable); });
  if (answer.status === 401) throw new Error(words.needsToken);
  const read = await answer.json();
  if (!answer.ok) throw new Error(read.detail);
  return read;
}

function complain(error) {
  part("problem").textContent = error ? error.message : "";
  part("problem").hidden = !error;
}

async function load() {
  try {
    cards = (await fetched("/v1/models")).models;
    const chosen = part("model").value;
    part("model").replaceChildren(...cards.map(card => new Option(card.name, card.name)));
    if (cards.some(card => card.name === chosen)) part("model").value = chosen;
    describe();
    complain(null);
  } catch (error) { complain(error); }
}

const percent = value => `${(100 * value).toFixed(1)} %`;

function made(kind, text, look) {
  const element = document.createElement(kind);
  element.textContent = text;
  if (look) element.className = look;
  return element;
}

function showAnswer(answer) {
  const label = Array.isArray(answer.label) ? answer.label.join(", ") || words.none : answer.label;
  const sure = answer.confidence === undefined ? "" : ` · ${percent(answer.confidence)}`;
  part("label").textContent = `${label ?? ""}${sure}`;
  part("routed").hidden = answer.routed === undefined;
  part("routed").textContent = answer.routed ? words.sure : words.unsure;
  const chances = Object.entries(answer.probabilities ?? {}).sort((a, b) => b[1] - a[1]).slice(0, SHOWN);
  part("chances").replaceChildren(...chances.map(([name, chance]) => {
    const line = document.createElement("li"), bar = document.createElement("div"), filled = made("i", "");
    filled.style.width = `${100 * chance}%`;
    bar.append(filled);
    line.append(made("span", name), bar, made("b", percent(chance)));
    return line;
  }));
  part("pieces").textContent = words.waiting;
  part("answer").hidden = false;
}

function showPieces(pieces) {
  const most = Math.max(1e-9, ...pieces.map(piece => Math.abs(piece.effect ?? 0)));
  part("pieces").replaceChildren(...pieces.map(piece => {
    if (piece.effect === null) return document.createTextNode(piece.text);
    const mark = made("mark", piece.text, piece.effect >= 0 ? "for" : "against");
    mark.style.setProperty("--weight", (0.6 * Math.abs(piece.effect) / most).toFixed(3));
    mark.title = `${piece.effect >= 0 ? "+" : "−"}${percent(Math.abs(piece.effect))}`;
    return mark;
  }));
}

function showEntities(text, entities) {
  // Places count characters, as Python does; JavaScript's own strings count halves of some.
  const letters = Array.from(text), shown = [];
  let end = 0;
  for (const one of entities) {
    shown.push(letters.slice(end, one.start).join(""));
    const mark = made("mark", letters.slice(one.start, one.end).join(""), "entity");
    mark.append(made("small", one.type));
    shown.push(mark);
    end = one.end;
  }
  part("label").textContent = words.count(entities.length);
  part("pieces").replaceChildren(...shown, letters.slice(end).join(""));
}

async function ask(event) {
  event?.preventDefault();
  const turn = ++asked, card = cards.find(one => one.name === part("model").value);
  const body = {model: card?.name, text: part("text").value};
  if (card?.pairs) body.pair = part("pair").value;
  part("ask").disabled = true;
  complain(null);
  try {
    const given = await fetched("/v1/predict", {...body, top_k: SHOWN});
    if (turn !== asked) return;
    showAnswer(given.answers[0]);
    const entities = given.answers[0].entities;
    for (const place of document.querySelectorAll("[data-for]")) {
      place.hidden = (place.dataset.for === "entities") !== Boolean(entities);
    }
    if (entities) return showEntities(body.text, entities);
    const reasons = await fetched("/v1/explain", body);
    if (turn === asked) showPieces(reasons.pieces);
  } catch (error) {
    if (turn === asked) complain(error);
  } finally {
    if (turn === asked) part("ask").disabled = false;
  }
}

part("form").addEventListener("submit", ask);
part("form").addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) part("form").requestSubmit();
});
part("model").addEventListener("change", () => {
  describe();
  if (!part("answer").hidden && part("text").value.trim()) ask();
});
part("token").addEventListener("change", load);
part("language").addEventListener("change", event => {
  keep("language", event.target.value);
  speak(event.target.value);
});
const wished = keep("language") ?? navigator.language.slice(0, 2);
speak(wished in WORDS ? wished : "en");
load();
