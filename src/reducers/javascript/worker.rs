//! The worker: a process of its own that folds in JavaScript, one aggregate after the other.
//!
//! It is a process because a thread cannot be stopped: QuickJS asks now and then whether to go on, but some of its built-in
//! functions loop for ever without asking. Whatever happens in here, the service kills the process and goes on.
//!
//! A fold begins anew at every multiple of the snapshot interval: in a fresh engine, from the state as JSON. So the state at
//! a version is the same from whichever snapshot a fold began, whatever a reducer hides in variables of its own.
//!
//! In: a line `{"begin": …}`, a line of JSON an event, an empty line at the end. Out: a line `{"state": …}` after each event
//! if asked for, then `{"done": …}`; or `{"failed": …}` or `{"invalid": …}`, after which the process ends.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::time::{ClockId, clock_gettime};
use rquickjs::context::{EvalOptions, intrinsic};
use rquickjs::function::This;
use rquickjs::{CatchResultExt, CaughtError, Context, Ctx, Function, Object, Runtime, Value};
use serde_json::value::RawValue;

use super::message::{Begin, Done, Fault, Invalid, ToParent};
use super::numbers::exact;
use crate::domain::json;
use crate::domain::version::Version;
use crate::reducers::canonical::canonical;
use crate::reducers::fold::STATE_BYTES_MAX;

/// Processor time of one event, and of the events between two multiples of the interval: a limit on the whole fold would
/// depend on where it began.
const EVENT_TIME: Duration = Duration::from_millis(100);
const SEGMENT_TIME: Duration = Duration::from_secs(10);
/// What is told of an error is cut here: it must fit the pipe whoever reads it, and be read by people.
const REASON_CHARS_MAX: usize = 500;
/// An event that takes so much processor time is stuck where QuickJS does not ask.
const STUCK: Duration = Duration::from_secs(2);
/// Memory and stack of the engine, and of the process around it.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;
const STACK_BYTES: usize = 256 * 1024;
const PROCESS_BYTES: u64 = 1024 * 1024 * 1024;

/// Runs until its input ends.
pub fn run() -> anyhow::Result<()> {
    setrlimit(Resource::RLIMIT_AS, PROCESS_BYTES, PROCESS_BYTES)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let watch = Arc::new(Watch::default());
    watch.clone().start();
    let mut input = std::io::stdin().lock();
    let mut line = String::new();
    while read_line(&mut input, &mut line)? {
        let Message { begin } = serde_json::from_str(&line)?;
        let answer = fold(begin, &mut input, &watch)?;
        let goes_on = matches!(answer, ToParent::Done(_));
        say(&answer)?;
        if !goes_on {
            return Ok(());
        }
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct Message {
    begin: Begin,
}

/// What the worker reads of an event; the whole of it goes to the reducer.
#[derive(serde::Deserialize)]
struct EventHead {
    version: Version,
    global_position: i64,
    event_type: String,
}

fn say(message: &ToParent) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, message)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// False at the end of the input.
fn read_line(input: &mut impl BufRead, line: &mut String) -> std::io::Result<bool> {
    line.clear();
    Ok(input.read_line(line)? > 0)
}

/// Where the fold is, for the thread that watches it.
#[derive(Default)]
struct Watch {
    /// A number for the event at hand, another one for each; 0 between two events.
    at_work: AtomicU64,
    version: AtomicI64,
    position: AtomicI64,
}

impl Watch {
    const CLAIMED: u64 = u64::MAX;

    fn start(self: Arc<Self>) {
        std::thread::spawn(move || {
            let mut seen = (0, process_time());
            loop {
                std::thread::sleep(STUCK / 20);
                let at_work = self.at_work.load(Ordering::SeqCst);
                if at_work == 0 || at_work != seen.0 {
                    seen = (at_work, process_time());
                } else if process_time() - seen.1 >= STUCK && self.claim(at_work) {
                    let fault = Fault {
                        version: Version::try_from(self.version.load(Ordering::SeqCst)).unwrap_or_default(),
                        global_position: self.position.load(Ordering::SeqCst),
                        reason: format!("it took longer than {} ms for one event", EVENT_TIME.as_millis()),
                    };
                    drop(say(&ToParent::Failed(fault)));
                    std::process::exit(1);
                }
            }
        });
    }

    fn begins(&self, version: Version, position: i64) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.version.store(version.into(), Ordering::SeqCst);
        self.position.store(position, Ordering::SeqCst);
        self.at_work.store(NEXT.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Takes the answer over from the fold, if it is still at this event.
    fn claim(&self, at_work: u64) -> bool {
        self.at_work.compare_exchange(at_work, Self::CLAIMED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Does not return if the watching thread has taken the answer over: it ends the process.
    fn ends(&self) {
        let ended = |at_work| (at_work != Self::CLAIMED).then_some(0);
        while self.at_work.fetch_update(Ordering::SeqCst, Ordering::SeqCst, ended).is_err() {
            std::thread::park();
        }
    }
}

/// Version and position of an event.
type Place = (Version, i64);

/// How far an engine came.
enum Segment {
    /// To a multiple of the interval: another one goes on from this state, after this event.
    Boundary {
        state: String,
        place: Place,
    },
    Answer(ToParent),
}

fn fold(begin: Begin, input: &mut impl BufRead, watch: &Watch) -> anyhow::Result<ToParent> {
    let mut state = begin.state.as_ref().map(|state| state.get().to_owned());
    let mut after = (0, 0);
    loop {
        match segment(&begin, state.as_deref(), after, input, watch)? {
            Segment::Boundary { state: reached, place } => (state, after) = (Some(reached), place),
            Segment::Answer(answer) => return Ok(answer),
        }
    }
}

/// Folds in a fresh engine, from a state to the next multiple of the interval or to the end.
fn segment(
    begin: &Begin,
    state: Option<&str>,
    after: Place,
    input: &mut impl BufRead,
    watch: &Watch,
) -> anyhow::Result<Segment> {
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
    // Neither Date nor anything else that tells the time, and no promises that nobody would wait for.
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
        watch.begins(0, 0);
        let reducer = match Reducer::load(&ctx, &begin.source) {
            Ok(reducer) => reducer,
            Err(invalid) => {
                watch.ends();
                return Ok(Segment::Answer(ToParent::Invalid(invalid)));
            }
        };
        let begun = match state {
            Some(state) => ctx.json_parse(exact(state).into_owned()).catch(&ctx).map_err(|caught| told(&caught)),
            None => reducer.init(&ctx),
        };
        watch.ends();
        let mut state = match begun {
            Ok(state) => state,
            Err(reason) => return Ok(failed(after.0, after.1, reason)),
        };
        // A limit that was passed is told as such, whatever the reducer made of it.
        let why = |reason: String| {
            let now = processor_time();
            if now - event_began.get() > EVENT_TIME {
                format!("it took longer than {} ms for one event", EVENT_TIME.as_millis())
            } else if now - segment_began > SEGMENT_TIME {
                format!("the events between two snapshots took longer than {} s", SEGMENT_TIME.as_secs())
            } else {
                reason
            }
        };
        let mut place = after;
        let mut line = String::new();
        while read_line(input, &mut line)? && line != "\n" {
            let head: EventHead = serde_json::from_str(&line)?;
            place = (head.version, head.global_position);
            event_began.set(processor_time());
            watch.begins(head.version, head.global_position);
            let applied = reducer.apply(&ctx, state.clone(), &head.event_type, &line);
            let printed = applied.and_then(|next| {
                state = next;
                let boundary = head.version % begin.snapshot_every == 0;
                Ok(if begin.each || boundary { Some((boundary, reducer.print(&ctx, &state)?)) } else { None })
            });
            watch.ends();
            match printed {
                Err(reason) => return Ok(failed(head.version, head.global_position, why(reason))),
                Ok(None) => {}
                Ok(Some((boundary, printed))) => {
                    if begin.each {
                        say(&ToParent::State(RawValue::from_string(printed.clone())?))?;
                    }
                    if boundary {
                        return Ok(Segment::Boundary { state: printed, place });
                    }
                }
            }
        }
        // Printing runs the reducer's code too: toJSON, getters.
        event_began.set(processor_time());
        watch.begins(place.0, place.1);
        let printed = reducer.print(&ctx, &state);
        watch.ends();
        match printed {
            Ok(printed) => Ok(Segment::Answer(ToParent::Done(Done { state: RawValue::from_string(printed)? }))),
            Err(reason) => Ok(failed(place.0, place.1, why(reason))),
        }
    })
}

fn failed(version: Version, global_position: i64, mut reason: String) -> Segment {
    if let Some((end, _)) = reason.char_indices().nth(REASON_CHARS_MAX) {
        reason.truncate(end);
        reason.push('…');
    }
    Segment::Answer(ToParent::Failed(Fault { version, global_position, reason }))
}

/// Processor time of this thread: what others do on the machine does not count.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Processor time of all of this process.
fn process_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// A source that was understood.
struct Reducer<'js> {
    object: Object<'js>,
    init: Option<Function<'js>>,
    any: Option<Function<'js>>,
    handlers: HashMap<String, Function<'js>>,
    /// Made before the source ran, out of its reach: refuses what JSON would silently drop.
    strict: Function<'js>,
}

/// Makes the replacer, and takes away what is not the same twice.
const PRELUDE: &str = "
    delete Math.random;
    ((finite, fault, map, set) => function (name, value) {
        if (typeof value === 'number' && !finite(value)) throw new fault(`${name}: ${value} is no JSON`);
        if (typeof value === 'function' || typeof value === 'symbol') throw new fault(`${name}: a ${typeof value} is no JSON`);
        if (value instanceof map || value instanceof set) throw new fault(`${name}: a Map or a Set is no JSON`);
        return value;
    })(Number.isFinite, TypeError, Map, Set)";

impl<'js> Reducer<'js> {
    fn load(ctx: &Ctx<'js>, source: &str) -> Result<Self, Invalid> {
        let invalid = |caught: CaughtError<'js>| Invalid::of(&told(&caught), stack(&caught).as_deref());
        let options = |name: &str| {
            let mut options = EvalOptions::default();
            options.filename = Some(name.to_owned());
            options
        };
        let strict = ctx.eval_with_options(PRELUDE, options("prelude")).catch(ctx).map_err(invalid)?;
        let object: Value = ctx.eval_with_options(source, options(SOURCE_NAME)).catch(ctx).map_err(invalid)?;
        let is_handlers = object.is_object() && !object.is_function() && !object.is_array() && !object.is_promise();
        let Some(object) = object.into_object().filter(|_| is_handlers) else {
            return Err(Invalid::of(
                "the source must be an expression that gives an object: ({ EventType(state, event) { … } })",
                None,
            ));
        };
        // Own members alone: what an object inherits is no handler.
        let mut handlers = HashMap::new();
        for member in object.props::<String, Value>() {
            let (name, value) = member.catch(ctx).map_err(invalid)?;
            let Some(function) = value.into_function() else {
                return Err(Invalid::of(&format!("{name} is no function"), None));
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
        state.catch(ctx).map_err(|caught| format!("init: {}", told(&caught)))
    }

    fn apply(&self, ctx: &Ctx<'js>, state: Value<'js>, event_type: &str, event: &str) -> Result<Value<'js>, String> {
        let Some(handler) = self.handlers.get(event_type).or(self.any.as_ref()) else { return Ok(state) };
        let event: Value = ctx.json_parse(exact(event).into_owned()).catch(ctx).map_err(|caught| told(&caught))?;
        let next: Value = handler
            .call((This(self.object.clone()), state, event))
            .catch(ctx)
            .map_err(|caught| format!("{event_type}: {}", told(&caught)))?;
        if next.is_undefined() {
            return Err(format!("{event_type}: the handler returned nothing; it must return the state"));
        }
        if next.is_promise() {
            return Err(format!("{event_type}: the handler returned a promise; nothing waits for one"));
        }
        Ok(next)
    }

    /// The state as JSON that can be kept, in the order in which it will come back.
    fn print(&self, ctx: &Ctx<'js>, state: &Value<'js>) -> Result<String, String> {
        let printed = ctx.json_stringify_replacer(state.clone(), self.strict.clone());
        let printed = printed.catch(ctx).map_err(|caught| format!("the state: {}", told(&caught)))?;
        let printed = printed.ok_or("the state is no JSON")?.to_string().map_err(|error| error.to_string())?;
        let raw = RawValue::from_string(printed).map_err(|error| format!("the state is no JSON: {error}"))?;
        let inspected = json::inspect(&raw)
            .map_err(|fault| format!("the state cannot be kept: {}: {}", fault.pointer, fault.reason))?;
        if inspected.printed_bytes > STATE_BYTES_MAX {
            return Err(format!("the state is larger than {STATE_BYTES_MAX} bytes"));
        }
        let mut ordered = String::with_capacity(raw.get().len());
        canonical(&raw, &mut ordered).map_err(|error| error.to_string())?;
        Ok(ordered)
    }
}

/// What the source is called in stacks.
const SOURCE_NAME: &str = "reducer";

impl Invalid {
    fn of(message: &str, stack: Option<&str>) -> Self {
        // "    at <anonymous> (reducer:3:14)"
        let place = stack.and_then(|stack| {
            let (_, rest) = stack.split_once(&format!("{SOURCE_NAME}:"))?;
            let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().unwrap_or(1)))
        });
        let (line, column) = place.unwrap_or((1, 1));
        Self { message: message.chars().take(REASON_CHARS_MAX).collect(), line, column }
    }
}

fn told(caught: &CaughtError<'_>) -> String {
    match caught {
        CaughtError::Exception(exception) => exception
            .message()
            .filter(|message| !message.is_empty())
            .unwrap_or_else(|| "an error without a message".to_owned()),
        CaughtError::Value(value) => value
            .as_string()
            .and_then(|text| text.to_string().ok())
            .unwrap_or_else(|| format!("threw a {}", value.type_name())),
        CaughtError::Error(error) => error.to_string(),
    }
}

fn stack(caught: &CaughtError<'_>) -> Option<String> {
    if let CaughtError::Exception(exception) = caught { exception.stack() } else { None }
}
