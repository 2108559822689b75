//! The worker: a process that folds in JavaScript, one aggregate after the other.
//!
//! It is a process because a thread cannot be stopped: QuickJS calls an interrupt handler regularly, but some of its
//! built-in functions loop forever without calling it. If a fold fails in any way, the service kills the process and
//! continues.
//!
//! At every multiple of the snapshot interval the fold restarts in a new engine, from the state as JSON. That JSON is
//! the snapshot, and it is printed once. So the state at a version does not depend on the snapshot with which a fold
//! begins, even if a reducer stores data in global variables, or if its values print as different JSON each time.
//!
//! Input: a line `{"begin": …}`, one line of JSON for each event, and an empty line at the end. Output: a line
//! `{"started": …}` before the first fold. For each fold: if requested, a line `{"state": …}` after each event; then
//! `{"done": …}`, or `{"failed": …}` or `{"invalid": …}`, after which the process ends.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::time::{ClockId, clock_gettime};
use rquickjs::context::{EvalOptions, intrinsic};
use rquickjs::function::This;
use rquickjs::{CatchResultExt, CaughtError, Context, Ctx, Function, Object, Runtime, Value};
use serde_json::value::RawValue;

use crate::domain::erasure::ERASED_EVENT_TYPE;
use crate::domain::json;
use crate::domain::version::Version;
use crate::mutants;
use crate::reducers::canonical::canonical;
use crate::reducers::error::InvalidReducer;
use crate::reducers::javascript::message::{Begin, Done, Fault, Started, WorkerReply};
use crate::reducers::javascript::numbers::quote_unsafe_numbers;
use crate::reducers::javascript::sandbox;
use crate::reducers::limits::STATE_BYTES_MAX;

/// The limits of processor time for one event, and for the events between two multiples of the interval. A limit for
/// the whole fold would depend on the snapshot with which it began.
const EVENT_TIME: Duration = Duration::from_millis(100);
const SEGMENT_TIME: Duration = Duration::from_secs(10);
/// Error messages are truncated: they must fit into the buffer of a pipe that the service may read late.
const REASON_CHARS_MAX: usize = 500;
/// An event that takes more processor time is in a built-in function that does not call the interrupt handler.
const STUCK_AFTER: Duration = Duration::from_secs(2);
/// The limits of the engine's memory and stack, and of the memory of the process.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;
const STACK_BYTES: usize = 256 * 1024;
const PROCESS_BYTES: u64 = 1024 * 1024 * 1024;

/// Folds one aggregate after the other, until standard input ends or a fold fails.
pub fn run() -> anyhow::Result<()> {
    setrlimit(Resource::RLIMIT_AS, PROCESS_BYTES, PROCESS_BYTES)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let forbidden = sandbox::forbid_new_privileges();
    let watchdog = Arc::new(Watchdog::default());
    watchdog.clone().start();
    // The limits are set, and no further thread is started: the filter refuses both.
    let filtered = forbidden.and_then(|()| sandbox::filter_system_calls());
    send(&WorkerReply::Started(Started { unfiltered: filtered.err() }))?;
    let mut input = std::io::stdin().lock();
    let mut line = String::new();
    while read_line(&mut input, &mut line)? {
        let Message { begin } = serde_json::from_str(&line)?;
        let reply = fold(begin, &mut input, &watchdog)?;
        let may_continue = matches!(reply, WorkerReply::Done(_));
        send(&reply)?;
        if !may_continue {
            return Ok(());
        }
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct Message {
    begin: Begin,
}

/// The members of an event that the worker reads. The handler receives the whole event.
#[derive(serde::Deserialize)]
struct EventHead<'l> {
    version: Version,
    global_position: i64,
    event_type: String,
    #[serde(borrow)]
    event_data: &'l RawValue,
}

impl EventHead<'_> {
    /// Returns whether the reducer is called with the event, as [`StoredEvent::is_folded`] says.
    ///
    /// [`StoredEvent::is_folded`]: crate::domain::event::StoredEvent::is_folded
    fn is_folded(&self) -> bool {
        let is_folded = self.event_data.get() != "null" && self.event_type != ERASED_EVENT_TYPE;
        is_folded || mutants::is(mutants::ERASED_EVENTS_FOLDED)
    }
}

fn send(message: &WorkerReply) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, message)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Reads a line. Returns false at the end of the input.
fn read_line(input: &mut impl BufRead, line: &mut String) -> std::io::Result<bool> {
    line.clear();
    Ok(input.read_line(line)? > 0)
}

/// The event that is being folded, for the thread that watches the fold.
#[derive(Default)]
struct Watchdog {
    /// A different number for each event that is being folded; 0 between two events.
    current: AtomicU64,
    version: AtomicI64,
    position: AtomicI64,
}

impl Watchdog {
    const CLAIMED: u64 = u64::MAX;

    /// Starts the thread that watches. Returns when the thread runs: it needs more system calls to start than later.
    fn start(self: Arc<Self>) {
        let running = Arc::new(Barrier::new(2));
        let waiting = running.clone();
        std::thread::spawn(move || {
            running.wait();
            let mut seen = (0, process_time());
            loop {
                std::thread::sleep(STUCK_AFTER / 20);
                let current = self.current.load(Ordering::SeqCst);
                if current == 0 || current != seen.0 {
                    seen = (current, process_time());
                } else if process_time() - seen.1 >= STUCK_AFTER && self.claim(current) {
                    let fault = Fault {
                        version: Version::try_from(self.version.load(Ordering::SeqCst)).unwrap_or_default(),
                        global_position: self.position.load(Ordering::SeqCst),
                        reason: format!("the reducer took longer than {} ms for one event", EVENT_TIME.as_millis()),
                    };
                    drop(send(&WorkerReply::Failed(fault)));
                    std::process::exit(1);
                }
            }
        });
        waiting.wait();
    }

    fn begin(&self, version: Version, position: i64) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.version.store(version.into(), Ordering::SeqCst);
        self.position.store(position, Ordering::SeqCst);
        self.current.store(NEXT.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Takes over the reply from the fold, if the fold is still at this event.
    fn claim(&self, current: u64) -> bool {
        self.current.compare_exchange(current, Self::CLAIMED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Ends an event. Does not return if the watching thread has taken over the reply: that thread ends the process.
    fn end(&self) {
        let ended = |current| (current != Self::CLAIMED).then_some(0);
        while self.current.fetch_update(Ordering::SeqCst, Ordering::SeqCst, ended).is_err() {
            std::thread::park();
        }
    }
}

/// The version and the position of an event.
type Place = (Version, i64);

/// The result of one engine.
enum Segment {
    /// It reached a multiple of the interval: the next engine continues from this state, after this event.
    Boundary {
        state: String,
        place: Place,
    },
    Reply(WorkerReply),
}

fn fold(begin: Begin, input: &mut impl BufRead, watchdog: &Watchdog) -> anyhow::Result<WorkerReply> {
    let mut state = begin.state.as_ref().map(|state| state.get().to_owned());
    let mut after = (0, 0);
    loop {
        match fold_segment(&begin, state.as_deref(), after, input, watchdog)? {
            Segment::Boundary { state: reached, place } => (state, after) = (Some(reached), place),
            Segment::Reply(reply) => return Ok(reply),
        }
    }
}

/// Reads the next event. Returns false after the last one.
fn read_event(input: &mut impl BufRead, line: &mut String) -> std::io::Result<bool> {
    Ok(read_line(input, line)? && line != "\n")
}

/// Folds in a new engine, from a state to the next multiple of the interval or to the end.
fn fold_segment(
    begin: &Begin,
    state: Option<&str>,
    after: Place,
    input: &mut impl BufRead,
    watchdog: &Watchdog,
) -> anyhow::Result<Segment> {
    let mut line = String::new();
    let mut has_event = read_event(input, &mut line)?;
    // A state without a further event is returned as it is. If an engine parsed it and printed it again, code of the
    // reducer could change it, and the state would depend on the number of folds that ended at this version.
    if let (false, Some(state)) = (has_event, state) {
        // A state of the database has white space.
        let mut text = String::with_capacity(state.len());
        canonical(serde_json::from_str(state)?, &mut text)?;
        return Ok(Segment::Reply(done(text)?));
    }
    let runtime = Runtime::new()?;
    runtime.set_memory_limit(MEMORY_BYTES);
    runtime.set_max_stack_size(STACK_BYTES);
    let segment_began = processor_time();
    let event_began = Rc::new(Cell::new(segment_began));
    let clock = event_began.clone();
    runtime.set_interrupt_handler(Some(Box::new(move || {
        let now = processor_time();
        now - clock.get() > EVENT_TIME || now - segment_began > SEGMENT_TIME
    })));
    // There is no Date and no other clock. Promises exist, but nothing awaits them: a handler that returns one fails.
    type Allowed = (
        intrinsic::Eval,
        intrinsic::RegExpCompiler,
        intrinsic::RegExp,
        intrinsic::Json,
        intrinsic::Proxy,
        intrinsic::MapSet,
        intrinsic::TypedArrays,
        intrinsic::Promise,
    );
    let context = Context::custom::<Allowed>(&runtime)?;
    context.with(|ctx| {
        watchdog.begin(0, 0);
        let reducer = match Reducer::load(&ctx, &begin.source) {
            Ok(reducer) => reducer,
            Err(invalid) => {
                watchdog.end();
                return Ok(Segment::Reply(WorkerReply::Invalid(invalid)));
            }
        };
        let begun = match state {
            Some(state) => ctx
                .json_parse(quote_unsafe_numbers(state).into_owned())
                .catch(&ctx)
                .map_err(|caught| message_of(&caught)),
            None => reducer.init(&ctx),
        };
        watchdog.end();
        let mut state = match begun {
            Ok(state) => state,
            Err(reason) => return Ok(failed(after.0, after.1, reason)),
        };
        // An exceeded limit is reported as such. The interrupt makes the reducer throw some other error.
        let explain = |reason: String| {
            let now = processor_time();
            if now - event_began.get() > EVENT_TIME {
                format!("the reducer took longer than {} ms for one event", EVENT_TIME.as_millis())
            } else if now - segment_began > SEGMENT_TIME {
                format!("the events between two snapshots took longer than {} s", SEGMENT_TIME.as_secs())
            } else {
                reason
            }
        };
        let mut place = after;
        while has_event {
            let head: EventHead<'_> = serde_json::from_str(&line)?;
            place = (head.version, head.global_position);
            event_began.set(processor_time());
            watchdog.begin(head.version, head.global_position);
            let is_requested = begin.output.has_state_after(head.version);
            let applied = if head.is_folded() {
                reducer.apply(&ctx, state.clone(), &head.event_type, &line)
            } else {
                Ok(state.clone())
            };
            let printed = applied.and_then(|next| {
                state = next;
                let boundary = head.version % begin.snapshot_every == 0;
                Ok(if is_requested || boundary { Some((boundary, reducer.print(&ctx, &state)?)) } else { None })
            });
            watchdog.end();
            match printed {
                Err(reason) => return Ok(failed(head.version, head.global_position, explain(reason))),
                Ok(None) => {}
                Ok(Some((boundary, printed))) => {
                    if is_requested {
                        send(&WorkerReply::State(RawValue::from_string(printed.clone())?))?;
                    }
                    if boundary {
                        return Ok(Segment::Boundary { state: printed, place });
                    }
                }
            }
            has_event = read_event(input, &mut line)?;
        }
        // Printing also runs code of the reducer: toJSON and getters.
        event_began.set(processor_time());
        watchdog.begin(place.0, place.1);
        let printed = reducer.print(&ctx, &state);
        watchdog.end();
        match printed {
            Ok(printed) => Ok(Segment::Reply(done(printed)?)),
            Err(reason) => Ok(failed(place.0, place.1, explain(reason))),
        }
    })
}

/// Returns the reply with the last state.
fn done(state: String) -> Result<WorkerReply, serde_json::Error> {
    Ok(WorkerReply::Done(Done { state: RawValue::from_string(state)? }))
}

fn failed(version: Version, global_position: i64, mut reason: String) -> Segment {
    if let Some((end, _)) = reason.char_indices().nth(REASON_CHARS_MAX) {
        reason.truncate(end);
        reason.push('…');
    }
    Segment::Reply(WorkerReply::Failed(Fault { version, global_position, reason }))
}

/// Returns the processor time of this thread, which does not depend on other load of the machine.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Returns the processor time of this process.
fn process_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// A reducer whose source was evaluated.
struct Reducer<'js> {
    object: Object<'js>,
    init: Option<Function<'js>>,
    any: Option<Function<'js>>,
    handlers: HashMap<String, Function<'js>>,
    /// A replacer that rejects values that JSON would change or silently drop. It was created before the source was
    /// evaluated, which cannot change it.
    strict: Function<'js>,
}

/// Creates the replacer, and removes `Math.random` and `JSON.rawJSON`. The latter prints numbers that PostgreSQL
/// returns in another form, like -0.
///
/// `JSON.stringify` calls `toJSON` before the replacer. In that case the member still has another value than the
/// replacer receives, or the function has returned the value to which it belongs.
const PRELUDE: &str = "
    delete Math.random;
    delete JSON.rawJSON;
    ((finite, fault, map, set, place) => function (name, value) {
        const type = typeof value;
        if (type === 'number' && !finite(value)) throw new fault(`${place(name)}${value} is not JSON`);
        if (type === 'function' || type === 'symbol') throw new fault(`${place(name)}a ${type} is not JSON`);
        if (value instanceof map || value instanceof set) throw new fault(`${place(name)}a Map or a Set is not JSON`);
        if (value !== this[name] || type === 'object' && value !== null && typeof value.toJSON === 'function')
            throw new fault(`${place(name)}a value with toJSON, or with a getter that changes, is not JSON`);
        return value;
    })(Number.isFinite, TypeError, Map, Set, (name) => name === '' ? '' : `${name}: `)";

impl<'js> Reducer<'js> {
    fn load(ctx: &Ctx<'js>, source: &str) -> Result<Self, InvalidReducer> {
        let invalid = |caught: CaughtError<'js>| invalid_reducer(&message_of(&caught), stack(&caught).as_deref());
        let options = |name: &str| {
            let mut options = EvalOptions::default();
            options.filename = Some(name.to_owned());
            options
        };
        let strict = ctx.eval_with_options(PRELUDE, options("prelude")).catch(ctx).map_err(invalid)?;
        let object: Value = ctx.eval_with_options(source, options(SOURCE_NAME)).catch(ctx).map_err(invalid)?;
        let is_handlers = object.is_object() && !object.is_function() && !object.is_array() && !object.is_promise();
        let Some(object) = object.into_object().filter(|_| is_handlers) else {
            return Err(invalid_reducer(
                "the source must be an expression that gives an object: ({ EventType(state, event) { … } })",
                None,
            ));
        };
        // Only own properties: an inherited function is not a handler.
        let mut handlers = HashMap::new();
        for member in object.props::<String, Value>() {
            let (name, value) = member.catch(ctx).map_err(invalid)?;
            let Some(function) = value.into_function() else {
                return Err(invalid_reducer(&format!("{name} is not a function"), None));
            };
            handlers.insert(name, function);
        }
        let (init, any) = (handlers.remove("init"), handlers.remove("$any"));
        Ok(Self { object, init, any, handlers, strict })
    }

    fn init(&self, ctx: &Ctx<'js>) -> Result<Value<'js>, String> {
        let state = match &self.init {
            Some(init) => init.call((This(self.object.clone()),)),
            None => ctx.json_parse("{}"),
        };
        state.catch(ctx).map_err(|caught| format!("init: {}", message_of(&caught)))
    }

    fn apply(&self, ctx: &Ctx<'js>, state: Value<'js>, event_type: &str, event: &str) -> Result<Value<'js>, String> {
        let Some(handler) = self.handlers.get(event_type).or(self.any.as_ref()) else { return Ok(state) };
        let event: Value = ctx
            .json_parse(quote_unsafe_numbers(event).into_owned())
            .catch(ctx)
            .map_err(|caught| message_of(&caught))?;
        let next: Value = handler
            .call((This(self.object.clone()), state, event))
            .catch(ctx)
            .map_err(|caught| format!("{event_type}: {}", message_of(&caught)))?;
        if next.is_undefined() {
            return Err(format!("{event_type}: the handler returned undefined; it must return the state"));
        }
        if next.is_promise() {
            return Err(format!("{event_type}: the handler returned a promise; it must return the state itself"));
        }
        Ok(next)
    }

    /// Returns the state as JSON that can be stored, with the keys in the order in which PostgreSQL returns them.
    fn print(&self, ctx: &Ctx<'js>, state: &Value<'js>) -> Result<String, String> {
        let printed = ctx.json_stringify_replacer(state.clone(), self.strict.clone());
        let printed = printed.catch(ctx).map_err(|caught| format!("the state: {}", message_of(&caught)))?;
        let printed = printed.ok_or("the state is not JSON")?.to_string().map_err(|error| error.to_string())?;
        let raw = RawValue::from_string(printed).map_err(|error| format!("the state is not JSON: {error}"))?;
        let inspected = json::inspect(&raw)
            .map_err(|fault| format!("the state cannot be stored: {} {}", place(&fault.pointer), fault.reason))?;
        if inspected.printed_bytes > STATE_BYTES_MAX {
            return Err(format!("the state is larger than {STATE_BYTES_MAX} bytes"));
        }
        let mut ordered = String::with_capacity(raw.get().len());
        canonical(&raw, &mut ordered).map_err(|error| error.to_string())?;
        Ok(ordered)
    }
}

/// Returns the subject of a sentence about a part of the state.
fn place(pointer: &str) -> &str {
    if pointer.is_empty() { "it" } else { pointer }
}

/// The file name of the source in stack traces.
const SOURCE_NAME: &str = "reducer";

fn invalid_reducer(message: &str, stack: Option<&str>) -> InvalidReducer {
    // A line of a stack trace: "    at <anonymous> (reducer:3:14)".
    let place = stack.and_then(|stack| {
        let (_, rest) = stack.split_once(&format!("{SOURCE_NAME}:"))?;
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().unwrap_or(1)))
    });
    let (line, column) = place.unwrap_or((1, 1));
    InvalidReducer { message: message.chars().take(REASON_CHARS_MAX).collect(), line, column }
}

fn message_of(caught: &CaughtError<'_>) -> String {
    match caught {
        CaughtError::Exception(exception) => exception
            .message()
            .filter(|message| !message.is_empty())
            .unwrap_or_else(|| "an error without a message".to_owned()),
        CaughtError::Value(value) => value
            .as_string()
            .and_then(|text| text.to_string().ok())
            .unwrap_or_else(|| "the code threw a value that is neither an Error nor a string".to_owned()),
        CaughtError::Error(error) => error.to_string(),
    }
}

fn stack(caught: &CaughtError<'_>) -> Option<String> {
    if let CaughtError::Exception(exception) = caught { exception.stack() } else { None }
}
