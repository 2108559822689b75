// Shows the end of the log while its section is open. The browser reconnects by itself, with the id of the last event.
const live = document.getElementById("live");
const state = document.getElementById("state");
const log = document.getElementById("log");
const LINES = 20;
let source = null;
// The number of times that the section was opened. A call of an earlier time stops when its response arrives.
let opened = 0;

async function follow() {
  const current = ++opened;
  log.textContent = "";
  state.textContent = "reading the head of the log";
  const page = await (await fetch("/events?after=head")).json();
  if (current !== opened || !live.open) { return; }
  const first = Math.max(0, page.head - 10);
  source = new EventSource(`/events?after=${page.epoch}:${first}`);
  source.onopen = () => { state.textContent = "connected"; };
  source.onerror = () => {
    state.textContent = source.readyState === EventSource.CLOSED ? "the server has closed the stream: open the section again" : "reconnecting";
  };
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    const line = `${event.global_position}  ${event.occurred_at}  ${event.aggregate_type}/${event.aggregate_id}@${event.version}  ${event.event_type}\n`;
    // As text, not as markup: an event can contain any text.
    log.textContent = (log.textContent + line).split("\n").slice(-LINES - 1).join("\n");
  };
  source.addEventListener("caught-up", (message) => {
    state.textContent = `connected; caught up at position ${JSON.parse(message.data).position}`;
  });
}

live.addEventListener("toggle", () => {
  if (source) { source.close(); source = null; }
  if (live.open) { follow().catch((error) => { state.textContent = String(error); }); }
});
if (location.hash === "#live") { live.open = true; }
