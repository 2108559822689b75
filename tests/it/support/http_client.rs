//! No promise: the HTTP client of the tests and of annals-torture.

/// Returns the builder of an HTTP client. reqwest needs a TLS provider even if it uses no TLS. An error means that a
/// provider is already installed.
pub fn http_client() -> reqwest::ClientBuilder {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy()
}
