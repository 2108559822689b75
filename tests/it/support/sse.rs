//! No promise: a reader of event streams, which parses them as a browser's `EventSource` does.

use super::{Call, within_a_minute};
use serde_json::Value;

/// An open event stream.
pub struct EventStream {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

/// A frame of an event stream, which has the fields up to an empty line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    pub event: String,
    pub id: String,
    pub data: String,
    pub retry: Option<u64>,
    pub comment: bool,
}

impl Frame {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {}", self.data))
    }

    /// Returns the position in the data of an event, of `caught-up` or of a heartbeat.
    pub fn position(&self) -> i64 {
        let data = self.json();
        let position = if self.event.is_empty() { &data["global_position"] } else { &data["position"] };
        position.as_i64().expect("a position")
    }
}

impl EventStream {
    pub async fn open(call: Call) -> Self {
        let response = call.header("accept", "text/event-stream").open().await;
        if response.status() != 200 {
            panic!("{}: {}", response.status(), response.text().await.unwrap_or_default());
        }
        Self::from_response(response)
    }

    pub fn from_response(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, buffer: Vec::new() }
    }

    pub fn headers(&self) -> &reqwest::header::HeaderMap {
        self.response.headers()
    }

    /// Returns the next frame of any kind; `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let frame: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(parse(std::str::from_utf8(&frame).expect("UTF-8")));
            }
            let chunk = within_a_minute("the next chunk", self.response.chunk()).await;
            match chunk.ok().flatten() {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return None,
            }
        }
    }

    /// Returns the next frame with data: an event, `caught-up` or a heartbeat.
    pub async fn message(&mut self) -> Frame {
        loop {
            let frame = self.frame().await.expect("the stream continues");
            if !frame.data.is_empty() {
                return frame;
            }
        }
    }

    /// Returns the next event.
    pub async fn event(&mut self) -> Frame {
        loop {
            let frame = self.message().await;
            if frame.event.is_empty() {
                return frame;
            }
        }
    }

    /// Returns the next frame with this name, after the events before it.
    pub async fn until(&mut self, name: &str) -> (Vec<Frame>, Frame) {
        let mut events = Vec::new();
        loop {
            let frame = self.message().await;
            if frame.event == name {
                return (events, frame);
            }
            if frame.event.is_empty() {
                events.push(frame);
            }
        }
    }
}

fn parse(text: &str) -> Frame {
    let mut frame = Frame::default();
    for line in text.lines() {
        match line.split_once(':').unwrap_or((line, "")) {
            ("", _) => frame.comment = true,
            (field, value) => {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "event" => frame.event = value.to_owned(),
                    "id" => frame.id = value.to_owned(),
                    "data" => frame.data.push_str(value),
                    "retry" => frame.retry = Some(value.parse().expect("milliseconds")),
                    "" => {}
                    other => panic!("an unknown field {other}"),
                }
            }
        }
    }
    frame
}
