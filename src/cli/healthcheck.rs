//! `annals healthcheck`: asks `/readyz`, for containers that have no shell.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer that is looked at.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// Address that the server listens on; an unspecified one (0.0.0.0) is asked on loopback
    #[arg(long, env = "ANNALS_LISTEN", value_name = "ANNALS_LISTEN", default_value = "127.0.0.1:8080")]
    annals_listen: SocketAddr,
}

pub async fn run(args: HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let mut address = args.annals_listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    let answer = match tokio::time::timeout(TIMEOUT, ask(address)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            eprintln!("{address} does not answer: {error}");
            return Ok(ExitCode::FAILURE);
        }
        Err(_) => {
            eprintln!("{address} does not answer within {} s", TIMEOUT.as_secs());
            return Ok(ExitCode::FAILURE);
        }
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    println!("{body}");
    let ready = head.split_whitespace().nth(1) == Some("200");
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One request of HTTP/1.0, whose answer ends with the connection.
async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    connection.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}
