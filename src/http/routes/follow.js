// Shows the end of the log while its section is open. A browser reconnects by itself, and says which event it had last.
const live = document.getElementById("live");
const state = document.getElementById("state");
const log = document.getElementById("log");
const LINES = 20;
let source = null;
// Which opening of the section is the last one: an older one that is still asking gives up.
let opened = 0;

async function follow() {
  const mine = ++opened;
  log.textContent = "";
  state.textContent = "looking for the end of the log";
  const page = await (await fetch("/events?after=head")).json();
  if (mine !== opened || !live.open) { return; }
  const first = Math.max(0, page.head - 10);
  source = new EventSource(`/events?after=${page.epoch}:${first}`);
  source.onopen = () => { state.textContent = "following"; };
  source.onerror = () => {
    state.textContent = source.readyState === EventSource.CLOSED ? "the server has ended this: open it again" : "connecting again";
  };
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    const line = `${event.global_position}  ${event.occurred_at}  ${event.aggregate_type}/${event.aggregate_id}@${event.version}  ${event.event_type}\n`;
    // Text, never markup: events may say anything.
    log.textContent = (log.textContent + line).split("\n").slice(-LINES - 1).join("\n");
  };
  source.addEventListener("caught-up", (message) => {
    state.textContent = `following; caught up at position ${JSON.parse(message.data).position}`;
  });
}

live.addEventListener("toggle", () => {
  if (source) { source.close(); source = null; }
  if (live.open) { follow().catch((error) => { state.textContent = String(error); }); }
});
if (location.hash === "#live") { live.open = true; }
