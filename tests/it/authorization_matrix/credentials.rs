//! No promise: the keys of the matrix, valid and invalid, and the forms of the header `Authorization`.

use std::time::Duration;

use annals::domain::access::Grant;
use annals::domain::quota::Quotas;
use annals::keyring;
use annals::store::admin::keys::NewKey;

use super::rules::{Grants, Identity};
use crate::support::{TestApp, pause_between_polls, within_a_minute};

/// A key for everything.
pub const EVERYTHING: &str = "admin:*";

/// Each of these is the only grant of a key. The first one is useless: no request names its type. Some are on names of
/// the other kind: projections have names like `p`, and types have names like `A`.
const SINGLE: [&str; 20] = [
    "read:Unrelated",
    "read:A",
    "read:A*",
    "read:*",
    "read:日本*",
    "read:a:b",
    "read:A-B",
    "append:A",
    "append:A*",
    "append:*",
    "append:B",
    "admin:A",
    "admin:A*",
    EVERYTHING,
    "admin:B",
    "admin:p*",
    "project:p",
    "project:p*",
    "project:*",
    "project:A*",
];

/// Each two of these are the grants of a key.
const PAIRED: [&str; 10] =
    ["read:A", "read:A*", "read:B", "read:a*", "append:A", "append:*", "admin:A", "admin:B", "project:p", "project:p*"];

/// What a request says about its sender.
#[derive(Debug)]
pub struct Credentials {
    pub name: String,
    /// The values of the header `Authorization`.
    pub authorization: Vec<String>,
    pub identity: Identity,
}

impl Credentials {
    fn with_grants(name: impl Into<String>, authorization: String, grants: &[&'static str]) -> Self {
        Self { name: name.into(), authorization: vec![authorization], identity: Identity::Key(Grants(grants.to_vec())) }
    }

    fn refused(name: &str, authorization: impl Into<String>) -> Self {
        Self { name: name.to_owned(), authorization: vec![authorization.into()], identity: Identity::Unknown }
    }
}

fn generate(grants: &[&str], expires_in: Option<Duration>) -> (String, NewKey) {
    let grants: Vec<Grant> = grants.iter().map(|grant| grant.parse().expect("a grant")).collect();
    keyring::generate("a key of the matrix".to_owned(), &grants, Quotas::default(), expires_in).expect("randomness")
}

async fn create_key(app: &TestApp, grants: &[&str], expires_in: Option<Duration>) -> String {
    let (key, new) = generate(grants, expires_in);
    app.app.primary.create_key(&new).await.expect("the key is stored");
    key
}

async fn read_keys(app: &TestApp) {
    app.app.keyring.refresh(&app.app.primary).await.expect("the keys are read");
}

/// Creates the keys.
pub async fn create(app: &TestApp) -> Vec<Credentials> {
    let mut grants: Vec<Vec<&'static str>> = SINGLE.iter().map(|grant| vec![*grant]).collect();
    for (index, first) in PAIRED.iter().enumerate() {
        grants.extend(PAIRED[index + 1..].iter().map(|second| vec![*first, *second]));
    }
    let mut credentials = Vec::new();
    for grants in &grants {
        let key = create_key(app, grants, None).await;
        credentials.push(Credentials::with_grants(grants.join(" "), format!("Bearer {key}"), grants));
    }
    // RFC 9110: the scheme has any case, and one or more spaces follow it.
    let reader = create_key(app, &["read:A"], None).await;
    for scheme in ["bearer ", "BEARER ", "Bearer  "] {
        let name = format!("read:A after {scheme:?}");
        credentials.push(Credentials::with_grants(name, format!("{scheme}{reader}"), &["read:A"]));
    }
    credentials.extend(create_invalid(app).await);
    credentials
}

/// Creates keys for everything that are not valid, and requests that contain a valid one in the wrong form. If the
/// service accepted one of them, the request would be admitted.
async fn create_invalid(app: &TestApp) -> Vec<Credentials> {
    let valid = create_key(app, &[EVERYTHING], None).await;
    let revoked = create_key(app, &[EVERYTHING], None).await;
    let expired = create_key(app, &[EVERYTHING], Some(Duration::from_secs(1))).await;
    let (unknown, _) = generate(&[EVERYTHING], None);
    // The service has cached the key when it is revoked.
    read_keys(app).await;
    let key_id = revoked.split('_').nth(1).expect("a key id");
    app.app.primary.revoke_key(key_id).await.expect("the key is revoked").expect("the key exists");
    read_keys(app).await;
    within_a_minute("the key expires", async {
        let authorization = format!("Bearer {expired}");
        while app.get("/projections").header("authorization", &authorization).send().await.status != 401 {
            pause_between_polls().await;
        }
    })
    .await;

    let (start, end) = valid.split_at(valid.len() - 1);
    let wrong_secret = format!("{start}{}", if end == "0" { "1" } else { "0" });
    let none = Credentials { name: "no key".to_owned(), authorization: Vec::new(), identity: Identity::Unknown };
    let bearer = format!("Bearer {valid}");
    let twice = Credentials {
        name: "the key twice".to_owned(),
        authorization: vec![bearer.clone(), bearer.clone()],
        identity: Identity::Ambiguous,
    };
    vec![
        none,
        twice,
        Credentials::refused("a revoked key", format!("Bearer {revoked}")),
        Credentials::refused("an expired key", format!("Bearer {expired}")),
        Credentials::refused("an unknown key", format!("Bearer {unknown}")),
        Credentials::refused("a wrong secret", format!("Bearer {wrong_secret}")),
        Credentials::refused("a key without its end", format!("Bearer {start}")),
        Credentials::refused("a key with another character", format!("Bearer {valid}x")),
        Credentials::refused("a key in capitals", format!("Bearer {}", valid.to_uppercase())),
        Credentials::refused("a key of another form", "Bearer annals_x_y"),
        Credentials::refused("the scheme Basic", format!("Basic {valid}")),
        Credentials::refused("no scheme", valid.clone()),
        Credentials::refused("a tab after the scheme", format!("Bearer\t{valid}")),
        Credentials::refused("two keys in one header", format!("{bearer}, {bearer}")),
        Credentials::refused("the scheme alone", "Bearer"),
        Credentials::refused("an empty header", ""),
    ]
}
