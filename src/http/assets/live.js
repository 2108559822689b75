// Shows the end of the log while its section is open and the page is visible.
//
// The stream is read with fetch and not with EventSource, which cannot send a key. A hidden page does not follow: a
// browser opens at most six connections to a server.
const live = document.getElementById("live");
const state = document.getElementById("state");
const log = document.getElementById("log");
const form = document.getElementById("key-form");
const LINES = 20;
const SHOWN_BEFORE = 10;
const RETRY_MS = 2000;
let running = null;
let cursor = null;
let key = sessionStorage.getItem("annals-key") ?? "";

function request(path, accept, signal) {
  const headers = { Accept: accept };
  if (key) { headers.Authorization = `Bearer ${key}`; }
  return fetch(path, { headers, signal });
}

function show(event) {
  const place = `${event.aggregate_type}/${event.aggregate_id}@${event.version}`;
  const line = `${event.global_position}  ${event.occurred_at}  ${place}  ${event.event_type}\n`;
  // As text, not as markup: an event can contain any text.
  log.textContent = (log.textContent + line).split("\n").slice(-LINES - 1).join("\n");
}

// Handles one frame of the event stream.
function receive(frame) {
  let name = "message";
  let data = "";
  for (const line of frame.split("\n")) {
    const [field, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trimStart()];
    if (field === "event") { name = value; }
    if (field === "data") { data = value; }
    if (field === "id") { cursor = value; }
  }
  if (name === "message" && data) { show(JSON.parse(data)); }
  if (name === "caught-up") { state.textContent = `connected; caught up at position ${JSON.parse(data).position}`; }
}

async function refused(response) {
  const problem = await response.json();
  form.hidden = response.status !== 401;
  state.textContent = problem.detail;
  if (response.status === 409) { cursor = null; }
}

async function follow(signal) {
  if (cursor === null) {
    state.textContent = "reading the head of the log";
    const response = await request("events?after=head", "application/json", signal);
    if (!response.ok) { await refused(response); return response.status === 503; }
    const page = await response.json();
    cursor = `${page.epoch}:${Math.max(0, page.head - SHOWN_BEFORE)}`;
    log.textContent = "";
  }
  const response = await request(`events?after=${encodeURIComponent(cursor)}`, "text/event-stream", signal);
  if (!response.ok) { await refused(response); return response.status === 503 || response.status === 409; }
  form.hidden = true;
  state.textContent = "connected";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) { return true; }
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    frames.forEach(receive);
  }
}

async function run(signal) {
  while (!signal.aborted) {
    let again = true;
    try {
      again = await follow(signal);
    } catch (error) {
      if (signal.aborted) { return; }
      state.textContent = "reconnecting";
    }
    if (!again) { return; }
    await new Promise((resolve) => { setTimeout(resolve, RETRY_MS); });
  }
}

// Starts or stops, so that the stream is open exactly while it is seen.
function update() {
  const wanted = live.open && document.visibilityState === "visible";
  if (!wanted && running) {
    running.abort();
    running = null;
    if (live.open) { state.textContent = "paused while the page is hidden"; }
  }
  if (wanted && !running) {
    running = new AbortController();
    run(running.signal);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  key = form.elements.key.value.trim();
  sessionStorage.setItem("annals-key", key);
  running?.abort();
  running = null;
  update();
});
live.addEventListener("toggle", update);
document.addEventListener("visibilitychange", update);
if (location.hash === "#live") { live.open = true; }
