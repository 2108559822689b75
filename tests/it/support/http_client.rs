//! No promise: the HTTP client of the tests and of annals-torture.

/// Begins an HTTP client. It needs a provider of TLS, although it uses none; an error means that one is installed already.
pub fn http_client() -> reqwest::ClientBuilder {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy()
}
