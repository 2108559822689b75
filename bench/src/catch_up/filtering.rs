//! Appends while many event streams are open whose filters match none of the events.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::bail;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::args::BenchArgs;
use crate::instance::{Server, ServerDatabase};
use crate::load::{Client, EVENT_DATA, append, append_body, request_over};
use crate::report::{Report, Row};
use crate::scratch::Scratch;

/// The number of appends in a second.
const APPENDS_PER_SECOND: u64 = 100;
/// The number of addresses from which the event streams are opened.
const ADDRESSES: usize = 100;

/// Measures the 99th percentile of the response times of appends, with and without the event streams, alternately. The
/// report has its inverse, so that a higher value is better, as in all other rows.
pub async fn measure(args: &BenchArgs, scratch: &Scratch, report: &mut Report) -> anyhow::Result<()> {
    let settings = [("ANNALS_MAX_SUBSCRIBERS", "10000")];
    let server = Server::start_with(args, ServerDatabase::Url(&scratch.options()), &settings).await?;
    let (mut beside, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        alone.push(appends(&server.address, args.seconds).await?);
        let event_streams = open_event_streams(&server.address, args.filtering).await?;
        beside.push(appends(&server.address, args.seconds).await?);
        drop(event_streams);
        wait_until_closed(&server.address).await?;
    }
    server.stop()?;
    let inverse = |times: &[Duration]| times.iter().map(|time| 1.0 / time.as_secs_f64()).collect::<Vec<_>>();
    let name = format!("1 / p99 of appends beside {} event streams that match nothing", args.filtering);
    let baseline = "without these event streams";
    report.rows.push(Row::from_rates(name, 1, &inverse(&beside), baseline, &inverse(&alone)));
    Ok(())
}

/// Event streams of one type each, which are read and discarded on a thread of their own until this is dropped.
struct EventStreams {
    _stop: tokio::sync::oneshot::Sender<()>,
}

async fn open_event_streams(address: &str, number: usize) -> anyhow::Result<EventStreams> {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (opened, all_opened) = tokio::sync::oneshot::channel();
    let address = address.to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async move {
            let result = async {
                for n in 0..number {
                    let path = format!("/events?after=head&aggregate_type=Idle{n}");
                    // An address may have only a share of the connections.
                    let socket = TcpSocket::new_v4()?;
                    let source = Ipv4Addr::new(127, 0, 1, u8::try_from(n % ADDRESSES)?);
                    socket.bind(SocketAddr::from((source, 0)))?;
                    let connection = socket.connect(address.parse()?).await?;
                    let mut connection = request_over(connection, &path, "text/event-stream").await?;
                    wait_until_caught_up(&mut connection).await?;
                    tokio::spawn(async move {
                        let mut buffer = [0; 1024];
                        while connection.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                    });
                }
                anyhow::Ok(())
            };
            // If the measurement has ended already, the event streams end as well.
            if opened.send(result.await).is_ok() {
                drop(stopped.await);
            }
        });
    });
    all_opened.await??;
    Ok(EventStreams { _stop: stop })
}

/// Waits until the service has no event stream. Otherwise their end would be measured with the next appends.
async fn wait_until_closed(address: &str) -> anyhow::Result<()> {
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    loop {
        let mut client = Client::connect(address).await?;
        let (_, metrics) = client.response(request).await?;
        if String::from_utf8_lossy(metrics).contains("annals_subscribers{transport=\"sse\"} 0\n") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn wait_until_caught_up(connection: &mut TcpStream) -> anyhow::Result<()> {
    let mut received = Vec::new();
    while !received.windows(9).any(|window| window == b"caught-up") {
        if connection.read_buf(&mut received).await? == 0 {
            bail!("an event stream has ended: {}", String::from_utf8_lossy(&received));
        }
    }
    Ok(())
}

/// Appends at a fixed rate, and returns the 99th percentile of the response times.
async fn appends(address: &str, seconds: u64) -> anyhow::Result<Duration> {
    let mut client = Client::connect(address).await?;
    let (request, mut times) = (append("Busy/stream-1", "", &append_body(1, EVENT_DATA)), Vec::new());
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(APPENDS_PER_SECOND)?);
    for _ in 0..APPENDS_PER_SECOND * seconds {
        ticks.tick().await;
        let started = std::time::Instant::now();
        client.expect(&request, 201).await?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times[(times.len() - 1) * 99 / 100])
}
