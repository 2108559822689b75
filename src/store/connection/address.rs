//! Addresses of databases: connection URIs as libpq defines them (PostgreSQL manual, section "Connection Strings").
//!
//! The driver parses URIs, too, but not all that `psql` accepts, and it ignores parameters that it does not know. Here
//! every parameter has its effect, or is refused with a sentence. No message contains the password.

use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::store::connection::config::ConnectOptions;

const EXAMPLE: &str = "write it like postgres://user:password@host:port/name";
/// The folders in which packages of PostgreSQL create its socket.
const SOCKET_FOLDERS: [&str; 4] = ["/run/postgresql", "/var/run/postgresql", "/private/tmp", "/tmp"];
const PORT_DEFAULT: u16 = 5432;
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
/// Parameters that have no effect here, with the only values that mean what Annals does.
const FIXED: [(&str, &[&str]); 8] = [
    ("load_balance_hosts", &["disable"]),
    ("gssencmode", &["disable", "prefer"]),
    ("channel_binding", &["disable", "prefer"]),
    ("sslnegotiation", &["postgres"]),
    ("sslcompression", &["0"]),
    ("client_encoding", &["utf8", "UTF8", "utf-8", "UTF-8", "auto"]),
    ("sslsni", &["0", "1"]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
];

/// The values of `target_session_attrs`. Annals writes, so the others have no use.
const SESSION_ATTRIBUTES: [&str; 3] = ["any", "read-write", "primary"];

/// The parts of an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Address {
    /// Names, IP addresses, or folders of Unix-domain sockets; none, or an empty one, for a local server. With several
    /// hosts, one of them is the primary.
    hosts: Vec<String>,
    /// The port of each host, or one for all; `None`: the default.
    ports: Vec<Option<u16>>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub name: Option<String>,
    /// The IP address to connect to, instead of the one of the host.
    host_address: Option<String>,
    ssl_mode: Option<String>,
    ssl_root_cert: Option<String>,
    ssl_cert: Option<String>,
    ssl_key: Option<String>,
    options: Option<String>,
    session_attributes: Option<String>,
}

impl Address {
    /// Parses `postgres://…`. The error is a sentence about the URI.
    pub fn parse(uri: &str) -> Result<Self, String> {
        let rest = uri.strip_prefix("postgres://").or_else(|| uri.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| format!("is not a URL of PostgreSQL: {EXAMPLE}"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, name) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, servers) = authority.rsplit_once('@').unwrap_or(("", authority));
        if login.contains('@') || name.contains('/') {
            let invalid = "has a character that must be percent-encoded: write %40 for @ and %2F for / in the user, \
                           the password and the name";
            return Err(invalid.to_owned());
        }
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let mut address = Self {
            user: decoded(user, "the user")?,
            password: decoded(password, "the password")?,
            name: decoded(name, "the name of the database")?,
            ..Self::default()
        };
        for server in servers.split(',') {
            address.add_server(server)?;
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decoded(key, "a parameter")?.unwrap_or_default();
            address.set(&key, decoded(value, "a parameter")?)?;
        }
        Ok(address)
    }

    /// Adds `host` or `host:port` of a URI.
    fn add_server(&mut self, server: &str) -> Result<(), String> {
        let (host, port) = match server.strip_prefix('[') {
            Some(bracketed) => {
                let (host, rest) = bracketed.split_once(']').ok_or("has a [ without a ] in the host")?;
                (host, rest.strip_prefix(':').unwrap_or(rest))
            }
            None => server.rsplit_once(':').unwrap_or((server, "")),
        };
        if host.contains(':') && !server.starts_with('[') {
            return Err("has an IPv6 address without brackets: write it like [::1]".to_owned());
        }
        self.hosts.push(decoded(host, "the host")?.unwrap_or_default());
        self.ports.push(parse_port_of_uri(port)?);
        Ok(())
    }

    /// Sets the port of a variable.
    pub fn set_port(&mut self, port: Option<u16>) {
        self.ports = vec![port];
    }

    /// Sets the hosts of a variable or a parameter, separated by commas. Each may have the brackets of a URI.
    pub fn set_hosts(&mut self, hosts: &str) {
        let bare =
            |host: &str| host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        self.hosts = hosts.split(',').map(bare).collect();
    }

    fn set(&mut self, key: &str, value: Option<String>) -> Result<(), String> {
        let text = value.clone().unwrap_or_default();
        if let Some((_, accepted)) = FIXED.iter().find(|(fixed, _)| *fixed == key) {
            return if text.is_empty() || accepted.contains(&text.as_str()) {
                Ok(())
            } else {
                Err(format!("has {key}={text}, which is not supported: remove it (supported: {})", accepted.join(", ")))
            };
        }
        match key {
            "host" => self.set_hosts(&text),
            "hostaddr" => {
                let address: IpAddr =
                    text.parse().map_err(|_| "has a hostaddr that is not an IP address".to_owned())?;
                self.host_address = Some(address.to_string());
            }
            "port" => self.ports = text.split(',').map(parse_port_of_uri).collect::<Result<_, _>>()?,
            "dbname" => self.name = value,
            "user" => self.user = value,
            "password" => self.password = value,
            "sslmode" if SSL_MODES.contains(&text.as_str()) => self.ssl_mode = value,
            "sslmode" => return Err(format!("has sslmode={text}: use one of {}", SSL_MODES.join(", "))),
            "sslrootcert" => self.ssl_root_cert = value,
            "sslcert" => self.ssl_cert = value,
            "sslkey" => self.ssl_key = value,
            "options" => self.options = value,
            "target_session_attrs" if SESSION_ATTRIBUTES.contains(&text.as_str()) => self.session_attributes = value,
            "target_session_attrs" => {
                return Err(format!(
                    "has target_session_attrs={text}: use read-write, because Annals needs the primary"
                ));
            }
            // The name is always annals: statements and documents of operators search for it.
            "application_name" | "fallback_application_name" => {}
            "connect_timeout" => return Err("has connect_timeout: set DATABASE_CONNECT_TIMEOUT instead".to_owned()),
            // The kernel's defaults, and the limits of time that every connection has.
            _ if key.starts_with("keepalives") || key == "tcp_user_timeout" => {}
            _ => {
                return Err(format!(
                    "has the parameter {key:?}, which Annals does not support: remove it. Supported are host, \
                     hostaddr, port, dbname, user, password, sslmode, sslrootcert, sslcert, sslkey and options"
                ));
            }
        }
        Ok(())
    }

    /// Returns the options of a connection to each server. Nothing is taken from the variables of libpq (`PGHOST` and
    /// others).
    pub fn to_options(&self) -> Result<Vec<ConnectOptions>, String> {
        let local = [String::new()];
        let hosts = if self.hosts.is_empty() { &local[..] } else { &self.hosts };
        if hosts.len() > 1 && !matches!(self.session_attributes.as_deref(), Some("read-write" | "primary")) {
            return Err("has several hosts without target_session_attrs=read-write: add it, because Annals needs the \
                        primary of them"
                .to_owned());
        }
        if hosts.len() > 1 && self.host_address.is_some() {
            return Err("has hostaddr and several hosts: use the hosts alone".to_owned());
        }
        if !(self.ports.len() <= 1 || self.ports.len() == hosts.len()) {
            return Err(format!(
                "has {} hosts and {} ports: give one port, or one for each host",
                hosts.len(),
                self.ports.len()
            ));
        }
        let port = |n: usize| self.ports.get(n).or(self.ports.first()).copied().flatten().unwrap_or(PORT_DEFAULT);
        hosts.iter().enumerate().map(|(n, host)| self.options_of(host, port(n))).collect()
    }

    fn options_of(&self, host: &str, port: u16) -> Result<ConnectOptions, String> {
        if self.host_address.is_some() && !host.is_empty() && self.ssl_mode.as_deref() == Some("verify-full") {
            return Err("has host and hostaddr with sslmode=verify-full: use host alone".to_owned());
        }
        let host = self.host_address.as_deref().unwrap_or(host);
        let host = if host.is_empty() { local_host(port) } else { host.to_owned() };
        let is_socket = host.starts_with('/');
        let user = match &self.user {
            Some(user) => user.clone(),
            None => login_name().ok_or("names no user, and the login of this process has no name: add user@")?,
        };
        let mut parameters = vec![
            ("host", host),
            ("port", port.to_string()),
            ("dbname", self.name.clone().unwrap_or_else(|| user.clone())),
            ("user", user),
            ("sslmode", self.effective_ssl_mode(is_socket)?.to_owned()),
        ];
        parameters.extend(self.password.clone().map(|password| ("password", password)));
        for (key, file) in
            [("sslrootcert", &self.ssl_root_cert), ("sslcert", &self.ssl_cert), ("sslkey", &self.ssl_key)]
        {
            let Some(file) = file.as_ref().filter(|file| !(is_socket || key == "sslrootcert" && *file == "system"))
            else {
                continue;
            };
            std::fs::metadata(file).map_err(|error| format!("has {key}={file}, which cannot be read: {error}"))?;
            parameters.push((key, file.clone()));
        }
        if self.ssl_cert.is_some() != self.ssl_key.is_some() {
            return Err("has only one of sslcert and sslkey: a client certificate needs both".to_owned());
        }
        parameters.extend(self.options.clone().map(|options| ("options", options)));
        let encoded: Vec<_> = parameters
            .iter()
            .map(|(key, value)| format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            .collect();
        // The error of the driver could contain the password.
        ConnectOptions::from_str(&format!("postgres://unused/?{}", encoded.join("&")))
            .map_err(|_| format!("is not understood by the driver: {EXAMPLE}"))
    }

    /// Returns the mode of the driver. As in libpq, a Unix-domain socket is never encrypted, and a root certificate
    /// makes `require` verify the certificate of the server.
    fn effective_ssl_mode(&self, is_socket: bool) -> Result<&str, String> {
        if is_socket {
            return Ok("disable");
        }
        let is_system = self.ssl_root_cert.as_deref() == Some("system");
        Ok(match self.ssl_mode.as_deref() {
            None if is_system => "verify-full",
            Some("verify-full") => "verify-full",
            Some(mode) if is_system => {
                return Err(format!("has sslrootcert=system with sslmode={mode}: it needs sslmode=verify-full"));
            }
            Some("require") if self.ssl_root_cert.is_some() => "verify-ca",
            Some("allow") | None => "prefer",
            Some(mode) => mode,
        })
    }
}

/// Parses a port.
pub fn parse_port(port: &str) -> Option<u16> {
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|port: &u16| is_number && *port > 0)
}

/// Parses a port of a URI, which may be empty.
fn parse_port_of_uri(port: &str) -> Result<Option<u16>, String> {
    if port.is_empty() {
        return Ok(None);
    }
    // The text is not shown: after a password with a `/`, it is a part of the password.
    let invalid = "has a port that is not a number from 1 to 65535; write %2F for / in a user or a password";
    Ok(Some(parse_port(port).ok_or(invalid)?))
}

/// Returns the folder with the socket of a local server, or else its name.
fn local_host(port: u16) -> String {
    let has_socket = |folder: &&&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    SOCKET_FOLDERS.iter().find(has_socket).map_or_else(|| "localhost".to_owned(), |folder| (*folder).to_owned())
}

/// Returns the name of the user who runs this process.
fn login_name() -> Option<String> {
    use nix::unistd::{User, geteuid};
    User::from_uid(geteuid()).ok().flatten().map(|user| user.name)
}

/// Percent-decodes a part of a URI; `None` if it is empty.
fn decoded(part: &str, what: &str) -> Result<Option<String>, String> {
    let text = percent_decode_str(part).decode_utf8().map_err(|_| format!("has {what} that is not UTF-8"))?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(uri: &str) -> Vec<ConnectOptions> {
        Address::parse(uri).and_then(|address| address.to_options()).unwrap_or_else(|error| panic!("{uri}: {error}"))
    }

    fn options(uri: &str) -> ConnectOptions {
        servers(uri).remove(0)
    }

    fn mode(options: &ConnectOptions) -> String {
        format!("{:?}", options.get_ssl_mode())
    }

    fn error(uri: &str) -> String {
        let parsed = Address::parse(uri).and_then(|address| address.to_options());
        parsed.err().unwrap_or_else(|| panic!("{uri} is accepted"))
    }

    #[test]
    fn what_psql_accepts_is_accepted() {
        let plain = options("postgres://me:p%40ss@db.example.com:6432/shop");
        assert_eq!((plain.get_host(), plain.get_port()), ("db.example.com", 6432));
        assert_eq!((plain.get_username(), plain.get_database()), ("me", Some("shop")));
        assert_eq!(options("postgresql://me@[::1]:5433/db").get_host(), "::1");
        assert_eq!(options("postgresql://me@[::1]/db").get_port(), 5432);
        for socket in [
            "postgres://me:secret@/db?host=/cloudsql/project:region:name",
            "postgres://me@%2Fvar%2Frun%2Fpostgresql/db",
            "postgres://me@/db?sslmode=require&host=/cloudsql/project:region:name",
        ] {
            let parsed = options(socket);
            assert!(parsed.get_socket().is_some(), "{socket}");
            assert_eq!(mode(&parsed), "Disable", "{socket}");
        }
        let all = "postgres://?host=db&port=5433&user=me&password=x&dbname=shop&sslmode=disable&options=-c%20geqo%3Doff\
                   &application_name=x&keepalives_idle=30&target_session_attrs=any&client_encoding=utf8";
        assert_eq!((options(all).get_host(), options(all).get_port()), ("db", 5433));
        assert_eq!(options("postgres://me@db").get_database(), Some("me"));
        assert_eq!(options("postgres://me@db/x?hostaddr=10.0.0.1").get_host(), "10.0.0.1");
    }

    #[test]
    fn several_hosts_have_their_ports_or_one_for_all() {
        for (uri, expected) in [
            ("postgres://me@a,b:6432,[::1]/x", [("a", 5432), ("b", 6432), ("::1", 5432)]),
            ("postgres://me@/x?host=a,b,c&port=1,2,3", [("a", 1), ("b", 2), ("c", 3)]),
            ("postgres://me@/x?host=a,b,c&port=6432", [("a", 6432), ("b", 6432), ("c", 6432)]),
        ] {
            for attributes in ["read-write", "primary"] {
                let uri =
                    format!("{uri}{}target_session_attrs={attributes}", if uri.contains('?') { '&' } else { '?' });
                let servers = servers(&uri);
                let found: Vec<_> = servers.iter().map(|options| (options.get_host(), options.get_port())).collect();
                assert_eq!(found, expected, "{uri}");
            }
        }
    }

    #[test]
    fn the_mode_of_tls_is_that_of_libpq() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let root = file.path().display();
        for (parameters, expected) in [
            (String::new(), "Prefer"),
            ("sslmode=allow".to_owned(), "Prefer"),
            ("sslmode=require".to_owned(), "Require"),
            (format!("sslmode=require&sslrootcert={root}"), "VerifyCa"),
            (format!("sslrootcert={root}&sslmode=require"), "VerifyCa"),
            (format!("sslmode=verify-full&sslrootcert={root}"), "VerifyFull"),
            ("sslrootcert=system".to_owned(), "VerifyFull"),
        ] {
            assert_eq!(mode(&options(&format!("postgres://me@db/x?{parameters}"))), expected, "{parameters}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_with_a_sentence_and_without_the_password() {
        for (uri, part) in [
            ("mysql://me@db/x", "is not a URL of PostgreSQL"),
            ("host=db", "is not a URL of PostgreSQL"),
            ("postgres://me:geheim@a,b/x", "several hosts"),
            ("postgres://me:geheim@a:1,b:2/x?target_session_attrs=any", "add it"),
            ("postgres://me:geheim@a,b/x?target_session_attrs=read-write&port=1,2,3", "2 hosts and 3 ports"),
            ("postgres://me:geheim@a,b/x?target_session_attrs=read-write&hostaddr=::1", "hosts alone"),
            ("postgres://me:geheim@/x?host=a,b", "several hosts"),
            ("postgres://me:geheim@db/x?target_session_attrs=standby", "target_session_attrs=standby"),
            ("postgres://me:geheim@db:0/x", "port"),
            ("postgres://me:geheim@db:70000/x", "port"),
            ("postgres://me:geheim@::1/x", "brackets"),
            ("postgres://me:geheim@[::1/x", "without a ]"),
            ("postgres://me:ge@heim@db/x", "%40"),
            ("postgres://me:ge/heim@db/x", "%2F"),
            ("postgres://me:geheim/1@db", "%2F"),
            ("postgres://me:geheim@db/x?sslmode=yes", "use one of disable"),
            ("postgres://me:geheim@db/x?sslmode=require&sslrootcert=/no/such/file", "cannot be read"),
            ("postgres://me:geheim@db/x?sslrootcert=system&sslmode=require", "verify-full"),
            ("postgres://me:geheim@db/x?connect_timeout=5", "DATABASE_CONNECT_TIMEOUT"),
            ("postgres://me:geheim@db/x?pool_size=5", "\"pool_size\""),
            ("postgres://me:geheim@db/x?hostaddr=db", "IP address"),
            ("postgres://me:geheim@db/x?hostaddr=10.0.0.1&sslmode=verify-full", "use host alone"),
            ("postgres://me:%ff@db/x", "the password that is not UTF-8"),
        ] {
            let error = error(uri);
            assert!(error.contains(part), "{uri}: {error}");
            assert!(!error.contains("geheim"), "{uri}: {error}");
        }
    }
}
