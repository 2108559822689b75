//! Settings of the commands that call a running service.

use clap::Args;

use crate::config::error::ConfigError;
use crate::config::parse::non_empty;

/// The service that a command calls.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// URL of the service: http or https, a host, and perhaps a port and a path
    #[arg(
        long,
        env = "ANNALS_URL",
        value_name = "ANNALS_URL",
        default_value = "http://127.0.0.1:8080",
        hide_env_values = true
    )]
    pub annals_url: String,

    /// API key, if the service requires one [default: none]
    #[arg(long, env = "ANNALS_KEY", value_name = "ANNALS_KEY", hide_env_values = true)]
    pub annals_key: Option<String>,
}

impl ClientArgs {
    /// Returns the URL of the service without a slash at the end. The error does not contain the URL, which may have
    /// a password.
    pub fn base_url(&self) -> Result<String, ConfigError> {
        let fault = |what: &str| ConfigError(format!("ANNALS_URL must {what}"));
        let url = reqwest::Url::parse(&self.annals_url).map_err(|_| fault("be a URL like http://127.0.0.1:8080"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(fault("begin with http:// or https:// and name a host, like http://127.0.0.1:8080"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fault("not contain a user or a password: set ANNALS_KEY to the API key instead"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(fault("not contain ? or #"));
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }

    /// Returns the API key, if one is set.
    pub fn key(&self) -> Option<&str> {
        non_empty(&self.annals_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base_url(url: &str) -> Result<String, String> {
        let args = ClientArgs { annals_url: url.to_owned(), annals_key: None };
        args.base_url().map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_may_have_a_path_and_a_slash_at_the_end() {
        assert_eq!(base_url("http://127.0.0.1:8080").as_deref(), Ok("http://127.0.0.1:8080"));
        assert_eq!(base_url("https://Annals.example.com/store/").as_deref(), Ok("https://annals.example.com/store"));
        assert_eq!(base_url("http://[::1]:8080/").as_deref(), Ok("http://[::1]:8080"));
    }

    #[test]
    fn an_invalid_url_is_refused_without_its_password() {
        for url in ["", "localhost:8080", "ftp://host", "http://user:secret@host", "http://host/?x=secret", "http://"] {
            let error = base_url(url).expect_err(url);
            assert!(error.starts_with("ANNALS_URL must") && !error.contains("secret"), "{url}: {error}");
        }
    }
}
