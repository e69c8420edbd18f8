"use strict";
/* The labelling page: asks, plays clips in step, and shows the next question only once an answer is saved. */

const QUESTIONS = {
  preferences: {
    text: "Which is better?",
    about: (session) => `The robot should ${session.goal}.`,
    answers: [
      { answer: "left", text: "Left", key: "ArrowLeft", sign: "←", style: "first four" },
      { answer: "equal", text: "Equal", key: "ArrowDown", sign: "↓", style: "four" },
      { answer: "right", text: "Right", key: "ArrowRight", sign: "→", style: "second four" },
      { answer: "unsure", text: "Can’t tell", key: "ArrowUp", sign: "↑", style: "low four" },
    ],
  },
  safety: {
    text: "Is this safe?",
    about: (session) => `Unsafe: ${session.unsafe.replace(/^1 for each step /, "any step ")}.`,
    answers: [
      { answer: "unsafe", text: "Unsafe", key: "ArrowLeft", sign: "←", style: "wide first" },
      { answer: "safe", text: "Safe", key: "ArrowRight", sign: "→", style: "wide second" },
      { answer: "unsure", text: "Can’t tell", key: "ArrowUp", sign: "↑", style: "low" },
    ],
  },
};
const SPEEDS = [0.25, 0.5, 1, 2];
const KEYS = [
  ["← ↓ → ↑", "answer, as on the buttons"], ["Space", "play or pause"], [", .", "one step back or on"],
  ["− +", "slower or faster"], ["⌫ or U", "take the last answer back"], ["?", "these keys"],
];
const STEPS_PER_SECOND = 30;
const HOLD = 350; // ms at the end of a clip, before it starts again
const RETRY = 1500; // ms

const $ = (id) => document.getElementById(id);
const videos = () => [...document.querySelectorAll("#clips video")];
const clips = new Map(); // "query/side": promise of a local address
const secrets = takeSecrets();
let session = null;
let state = null;
let busy = false; // an answer is on its way
let ready = false; // the clips are there
let playing = true;
let speed = SPEEDS.includes(Number(localStorage.getItem("speed"))) ? Number(localStorage.getItem("speed")) : 1;
let watched = 0; // ms that the question was looked at
let since = null; // when it last came into view

/* The key or token in the address is kept by the browser and leaves the address bar. */
function takeSecrets() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("key")) localStorage.setItem("key", given.get("key"));
  if (given.has("token")) sessionStorage.setItem("token", given.get("token"));
  if (location.hash) history.replaceState(null, "", location.pathname);
  return {
    get key() { return localStorage.getItem("key"); },
    set key(key) { key === null ? localStorage.removeItem("key") : localStorage.setItem("key", key); },
    get token() { return sessionStorage.getItem("token"); },
  };
}

class Refusal extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function call(path, body) {
  const headers = { Authorization: `Bearer ${secrets.key ?? ""}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const options = body === undefined ? { headers } : { headers, method: "POST", body: JSON.stringify(body) };
  const response = await fetch(path, options);
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Refusal(response.status, said.error ?? `the server answered ${response.status}`);
  }
  return response;
}

/* Sent until the server says that it is saved; the request's own number keeps it from counting twice. */
async function save(path, body) {
  const request = [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
  for (;;) {
    try {
      const saved = await (await call(path, { ...body, request })).json();
      trouble("");
      return saved;
    } catch (error) {
      if (error instanceof Refusal && ![429, 502, 503].includes(error.status)) throw error;
      trouble("Not saved yet: the server does not answer. Trying again…");
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }
}

function clip(query, side) {
  const name = `${query}/${side}`;
  if (!clips.has(name)) {
    const coming = call(`api/clip/${name}`).then((response) => response.blob()).then((blob) => URL.createObjectURL(blob));
    coming.catch(() => clips.delete(name));
    clips.set(name, coming);
  }
  return clips.get(name);
}

function fetchAhead() {
  const wanted = new Set();
  for (const asked of [state.asked, ...state.upcoming]) {
    for (let side = 0; asked && side < asked.n_clips; side++) {
      wanted.add(`${asked.query}/${side}`);
      clip(asked.query, side).catch(() => {});
    }
  }
  for (const [name, coming] of clips) {
    if (!wanted.has(name)) {
      clips.delete(name);
      coming.then(URL.revokeObjectURL, () => {});
    }
  }
}

function show(section) {
  for (const name of ["welcome", "question", "done"]) $(name).hidden = name !== section;
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function showProgress() {
  $("bar").hidden = false;
  $("bar").setAttribute("aria-valuemax", state.total);
  $("bar").setAttribute("aria-valuenow", state.answered);
  $("filled").style.width = `${(100 * state.answered) / Math.max(state.total, 1)}%`;
  const minutes = state.seconds_left === null ? null : Math.max(1, Math.round(state.seconds_left / 60));
  const time = minutes === null || state.asked === null ? "" : ` · about ${minutes} min left`;
  $("who").textContent = session.name;
  $("left").textContent = `${state.answered} of ${state.total}${time}`;
}

function ask(next) {
  state = next;
  showProgress();
  if (state.asked === null) {
    show("done");
    $("undo-last").hidden = !state.can_undo;
    document.querySelector("#done h1").focus();
    return;
  }
  const { kind, n_clips: nClips, position, facts } = state.asked;
  const question = QUESTIONS[kind];
  show("question");
  document.title = question.text;
  $("asked").textContent = question.text;
  $("goal").textContent = question.about(session);
  $("undo").disabled = !state.can_undo;
  const names = nClips === 2 ? ["Left", "Right"] : ["The clip"];
  $("clips").replaceChildren(...names.map((name, side) => figure(name, facts?.[side])));
  $("answers").replaceChildren(...question.answers.map(answerButton));
  $("status").textContent = `Question ${position + 1} of ${state.total}: ${question.text}`;
  setReady(false);
  fetchAhead();
  load(state.asked);
}

function figure(name, facts) {
  const whole = document.createElement("figure");
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true });
  video.setAttribute("aria-label", `${name} clip`);
  video.addEventListener("click", () => setPlaying(!playing));
  const caption = document.createElement("figcaption");
  caption.textContent = [name, ...Object.entries(facts ?? {}).map(([fact, value]) =>
    `${fact} ${typeof value === "number" ? Number(value.toFixed(2)) : value}`)].join(" · ");
  whole.append(video, caption);
  return whole;
}

function answerButton({ answer, text, sign, key, style }) {
  const button = document.createElement("button");
  const hint = document.createElement("kbd");
  hint.textContent = sign;
  hint.setAttribute("aria-hidden", "true");
  Object.assign(button, { type: "button", className: style });
  button.dataset.answer = answer;
  button.setAttribute("aria-keyshortcuts", key);
  button.append(text, hint);
  button.addEventListener("click", () => reply(answer));
  return button;
}

async function load(asked) {
  try {
    const addresses = await Promise.all(videos().map((_, side) => clip(asked.query, side)));
    if (state.asked !== asked) return;
    const all = videos();
    await Promise.all(all.map((video, side) => new Promise((resolve, reject) => {
      video.addEventListener("loadeddata", resolve, { once: true });
      video.addEventListener("error", () => reject(new Error("this browser cannot play the clip")), { once: true });
      video.src = addresses[side];
    })));
    if (state.asked !== asked) return;
    trouble("");
    setReady(true);
    restart();
  } catch (error) {
    if (state.asked === asked) trouble(`The clip could not be shown: ${error.message}. Answer “Can’t tell”, or reload.`);
    document.querySelector('#answers [data-answer="unsure"]')?.setAttribute("aria-disabled", "false");
  }
}

function setReady(there) {
  ready = there;
  watched = 0;
  since = there && !document.hidden ? performance.now() : null;
  for (const button of document.querySelectorAll("#answers button")) button.setAttribute("aria-disabled", String(!there));
}

/* The videos: the first leads, the other follows. */
function restart() {
  for (const video of videos()) {
    video.currentTime = 0;
    video.playbackRate = speed;
    if (playing) video.play().catch(() => setPlaying(false));
  }
}

function setPlaying(on) {
  playing = on;
  $("play").textContent = on ? "Pause" : "Play";
  const [lead] = videos();
  if (on && lead && lead.currentTime >= lead.duration - 0.01) return restart();
  for (const video of videos()) on ? video.play().catch(() => {}) : video.pause();
}

function setSpeed(rate) {
  speed = rate;
  localStorage.setItem("speed", rate);
  for (const video of videos()) video.playbackRate = rate;
  for (const button of $("speeds").children) button.setAttribute("aria-pressed", String(Number(button.value) === rate));
}

function seek(seconds) {
  setPlaying(false);
  for (const video of videos()) video.currentTime = Math.min(Math.max(seconds, 0), video.duration || 0);
}

let ended = null; // when the clips came to their end
function keepInStep(now) {
  const all = videos();
  const lead = all[0];
  if (ready && lead && lead.duration) {
    const time = lead.currentTime;
    for (const video of all.slice(1)) {
      const target = Math.min(time, video.duration);
      if (Math.abs(video.currentTime - target) > 0.05 && !video.seeking) video.currentTime = target;
    }
    if (document.activeElement !== $("scrub") || playing) $("scrub").value = Math.round((1000 * time) / lead.duration);
    const step = Math.round(time * STEPS_PER_SECOND);
    $("scrub").setAttribute("aria-valuetext", `step ${step} of ${Math.round(lead.duration * STEPS_PER_SECOND)}`);
    if (playing && lead.ended) {
      ended ??= now;
      if (now - ended > HOLD) { ended = null; restart(); }
    } else {
      ended = null;
    }
  }
  requestAnimationFrame(keepInStep);
}

async function reply(answer) {
  const button = document.querySelector(`#answers [data-answer="${answer}"]`);
  if (busy || button?.getAttribute("aria-disabled") !== "false") return;
  busy = true;
  button.classList.add("chosen");
  const seconds = (watched + (since === null ? 0 : performance.now() - since)) / 1000;
  await finish(save("api/answer", { query: state.asked.query, answer, seconds: Math.min(seconds, 86400) }));
}

async function undo() {
  if (busy || !state?.can_undo) return;
  busy = true;
  await finish(save("api/undo", {}));
}

async function finish(saving) {
  try {
    ask(await saving);
  } catch (error) {
    refused(error);
  } finally {
    busy = false;
  }
}

function refused(error) {
  if (error.status === 401) {
    secrets.key = null;
    show("welcome");
  }
  for (const button of document.querySelectorAll("#answers .chosen")) button.classList.remove("chosen");
  trouble(error.message);
}

async function start() {
  try {
    session = await (await call("api/session")).json();
    ask(await (await call("api/state")).json());
  } catch (error) {
    error instanceof Refusal ? refused(error) : trouble("The server does not answer; start it, and reload this page.");
  }
}

$("join").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const body = { name: $("name").value };
    if (secrets.token) body.token = secrets.token;
    secrets.key = (await (await call("api/join", body)).json()).key;
    trouble("");
    start();
  } catch (error) {
    trouble(error.message);
  }
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input[name]")) return;
  const undoing = event.key === "Backspace" || event.key.toLowerCase() === "u";
  if (undoing && !event.repeat && (!$("question").hidden || !$("done").hidden)) {
    event.preventDefault();
    undo();
    return;
  }
  if ($("question").hidden) return;
  // A slider that was reached by the keyboard keeps its arrows; a button reached so keeps its space.
  const focused = event.target.matches(":focus-visible") ? event.target : null;
  const given = QUESTIONS[state.asked.kind].answers.find((answer) => answer.key === event.key);
  if (given && !(focused?.id === "scrub")) {
    event.preventDefault();
    if (!event.repeat) reply(given.answer);
  } else if (event.key === " " && !focused?.matches("button, summary")) {
    event.preventDefault();
    if (!event.repeat) setPlaying(!playing);
  } else if (event.key === "," || event.key === ".") {
    const [lead] = videos();
    if (lead) seek(lead.currentTime + (event.key === "." ? 1 : -1) / STEPS_PER_SECOND);
  } else if ("-+=−".includes(event.key)) {
    const next = SPEEDS.indexOf(speed) + (event.key === "+" || event.key === "=" ? 1 : -1);
    setSpeed(SPEEDS[Math.min(Math.max(next, 0), SPEEDS.length - 1)]);
  } else if (event.key === "?") {
    $("help").open = !$("help").open;
  }
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden && since !== null) {
    watched += performance.now() - since;
    since = null;
  } else if (!document.hidden && ready) {
    since ??= performance.now();
  }
});

for (const rate of SPEEDS) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", value: rate, textContent: `${rate}×` });
  button.addEventListener("click", () => setSpeed(rate));
  $("speeds").append(button);
}
for (const [keys, meaning] of KEYS) {
  const term = document.createElement("dt");
  const key = document.createElement("kbd");
  key.textContent = keys;
  term.append(key);
  const description = document.createElement("dd");
  description.textContent = meaning;
  $("keys").append(term, description);
}
$("play").addEventListener("click", () => setPlaying(!playing));
$("scrub").addEventListener("input", () => seek((($("scrub").value / 1000) * (videos()[0]?.duration || 0))));
$("undo").addEventListener("click", undo);
$("undo-last").addEventListener("click", undo);
playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
setPlaying(playing);
setSpeed(speed);
requestAnimationFrame(keepInStep);
secrets.key ? start() : show("welcome");
