//! The command: fills a store, prints what it has made, and continues to append if the person wants it.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;
use uuid::Uuid;

use crate::cli::client::failure::{Failure, Kind};
use crate::cli::client::http::Client;
use crate::cli::client::output::{Output, OutputArgs, Part};
use crate::cli::demo::group::{GROUP, work};
use crate::cli::demo::service::{append, head, register_reducer, set_projection};
use crate::cli::demo::shop::{DemoEvent, Shop, Step};
use crate::config::client::ClientArgs;

/// The text after the flags in the help.
pub const EXAMPLES: &str = "\
The service gives each event the time of its append, so all events are of now and none is of the past.

Examples:
  annals demo                              fill an empty store with about 3,000 events of a shop
  annals demo --follow                     and then append a few events a second, until Ctrl-C
  annals demo --into-existing              the same in a store that has events";

/// The number of orders in a full demo. An order has about 15 events.
const ORDERS: usize = 200;
/// The number of orders whose steps are appended together. A request has at most as many new streams.
const ORDERS_IN_BATCH: usize = 20;

/// The number of orders that are in progress at a time while the command follows.
const ORDERS_IN_PROGRESS: usize = 4;
const PAUSE: Duration = Duration::from_millis(400);

/// The projection that follows the log.
const CURRENT: &str = "demo-order-list";
/// The projections that lag, with the thousandths of the demo that they have not processed.
const LAGGING: [(&str, u64); 3] =
    [("demo-search-index", 5), ("demo-loyalty-letters", 100), ("demo-monthly-report", 600)];

/// The arguments of `annals demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Continue to append a few events a second, until Ctrl-C
    #[arg(short, long)]
    follow: bool,

    /// Append also to a store that has events
    #[arg(long)]
    into_existing: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// The events that the demo has appended.
#[derive(Default)]
struct Made {
    events: u64,
    /// The numbers of events and of new streams of each aggregate type.
    by_type: BTreeMap<&'static str, (u64, u64)>,
    /// The position of the last event.
    head: u64,
}

impl Made {
    async fn append(&mut self, client: &Client, step: &[DemoEvent]) -> Result<(), Failure> {
        self.head = append(client, step).await?;
        for event in step {
            let (events, streams) = self.by_type.entry(event.aggregate_type).or_default();
            *events += 1;
            *streams += u64::from(event.is_first);
            self.events += 1;
        }
        Ok(())
    }
}

/// Runs `annals demo`.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut output = Output::new(OutputArgs { json: false });
    let head = head(&client).await?;
    if head > 0 && !args.into_existing {
        let remedy = "Use an empty store, or add --into-existing to append to this one";
        return Err(Failure::new(Kind::Conflict, format!("the store has events, up to position {head}. {remedy}")));
    }
    let has_reducer = register_reducer(&client).await?;
    let mut shop = Shop::new(head);
    let order = shop.next_order_id();
    let (made, correlation_id) = fill(&client, &mut shop).await?;
    let has_current = set_projection(&client, CURRENT, made.head).await?;
    let mut projections: Vec<&str> = has_current.then_some(CURRENT).into_iter().collect();
    for (name, thousandths) in LAGGING {
        if set_projection(&client, name, made.head - made.events * thousandths / 1_000).await? {
            projections.push(name);
        }
    }

    output.line(&format!("Appended {} events, up to position {}:", made.events, made.head))?;
    for (aggregate_type, (events, streams)) in &made.by_type {
        let name = output.paint(Part::Stream, &format!("{aggregate_type:<10}"));
        output.line(&format!("  {name}{events:>6} events in {streams:>4} streams"))?;
    }
    if !projections.is_empty() {
        output.line(&format!("Projections: {}", projections.join(", ")))?;
    }
    if work(&client).await? {
        output.line(&format!("Consumer group: {GROUP}, with two parked streams"))?;
    }
    output.line("Look at them:")?;
    if has_reducer {
        output.line(&format!("  annals state Order/{order}"))?;
    }
    if let Some(correlation_id) = correlation_id {
        output.line(&format!("  annals trace {correlation_id}"))?;
    }
    output.line(&format!("  {}/console/", args.client.base_url()?))?;
    output.flush()?;
    if args.follow {
        match follow(&client, &mut shop, has_current, &mut output).await? {}
    }
    Ok(())
}

/// Appends a full demo. Returns what it has made, and the correlation id of its first order.
async fn fill(client: &Client, shop: &mut Shop) -> Result<(Made, Option<Uuid>), Failure> {
    let mut made = Made::default();
    for step in shop.opening() {
        made.append(client, &step).await?;
    }
    let mut correlation_id = None;
    for _ in 0..ORDERS / ORDERS_IN_BATCH {
        let mut orders: Vec<VecDeque<Step>> = (0..ORDERS_IN_BATCH).map(|_| shop.order()).collect();
        loop {
            // The next step of every order, so that orders overlap in the log.
            let step: Step = orders.iter_mut().filter_map(VecDeque::pop_front).flatten().collect();
            let Some(first) = step.first() else { break };
            correlation_id = correlation_id.or(Some(first.body.correlation_id));
            made.append(client, &step).await?;
        }
    }
    Ok((made, correlation_id))
}

/// Appends the steps of a few orders in turn, and moves the current projection after them, until the process is
/// interrupted.
async fn follow(
    client: &Client,
    shop: &mut Shop,
    moves_projection: bool,
    output: &mut Output,
) -> Result<Infallible, Failure> {
    output.line("Appending a few events a second, until Ctrl-C:")?;
    output.flush()?;
    let mut in_progress: VecDeque<VecDeque<Step>> = VecDeque::new();
    loop {
        if in_progress.len() < ORDERS_IN_PROGRESS {
            in_progress.push_front(shop.order());
        }
        let mut order = in_progress.pop_front().unwrap_or_default();
        if let Some(step) = order.pop_front() {
            let position = append(client, &step).await?;
            if moves_projection {
                set_projection(client, CURRENT, position).await?;
            }
            for event in &step {
                let stream = format!("{}/{}", event.aggregate_type, event.aggregate_id);
                let (stream, kind) =
                    (output.paint(Part::Stream, &stream), output.paint(Part::Kind, event.body.event_type));
                output.line(&format!("{stream}  {kind}"))?;
            }
            output.flush()?;
        }
        if !order.is_empty() {
            in_progress.push_back(order);
        }
        sleep(PAUSE).await;
    }
}
