//! Tasks that run beside the requests.

pub mod maintenance;
pub mod refresh;
pub mod statistics;

use std::time::Duration;

use crate::app::App;

/// Runs pass after pass, from number 0 on, with a pause after each, until shutdown.
async fn repeat<F: Future<Output = ()>>(app: &App, pause: Duration, mut pass: impl FnMut(u32) -> F) {
    let soft = app.shutdown.soft();
    let all = async {
        for number in 0.. {
            pass(number).await;
            tokio::time::sleep(pause).await;
        }
    };
    soft.run_until_cancelled(all).await;
}
