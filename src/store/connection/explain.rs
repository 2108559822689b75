//! Why a database cannot be used, for an operator who starts Annals: which of the usual causes it is, and what helps.

use rustls::CertificateError;

use crate::store::connection::config::DatabaseConfig;
use crate::store::error::{DatabaseError, is_from_pooler};

/// Returns whether an error of the first connections may end by itself: the server is away, starts, or is a standby that
/// a failover may promote.
pub(in crate::store) fn is_temporary(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Driver(sqlx::Error::Database(reported)) => {
            let code = reported.code().unwrap_or_default();
            is_from_pooler(reported.message())
                || matches!(&*code, "25006" | "53300" | "57P01" | "57P02" | "57P03")
                || code.starts_with("08") && code != "08P01"
        }
        DatabaseError::Driver(sqlx::Error::Io(failed)) => tls_error(failed).is_none(),
        DatabaseError::Driver(sqlx::Error::Protocol(_))
        | DatabaseError::TimedOut(_)
        | DatabaseError::ReadOnly
        | DatabaseError::NoPrimary(_) => true,
        _ => false,
    }
}

/// Describes an error of the first connections.
pub(in crate::store) fn explain(error: &DatabaseError, config: &DatabaseConfig) -> String {
    let place = config.place();
    // The servers have the same user and database.
    let user = config.servers.first().map_or("", |options| options.get_username());
    let database = config.servers.first().and_then(|options| options.get_database()).unwrap_or(user);
    match error {
        DatabaseError::Driver(sqlx::Error::Database(reported)) => {
            let message = reported.message();
            match reported.code().as_deref().unwrap_or_default() {
                "28P01" => format!("PostgreSQL {place} refuses the password of the user {user:?}"),
                "28000" => format!("PostgreSQL {place} refuses the login of the user {user:?}: {message}"),
                "3D000" => format!(
                    "PostgreSQL {place} has no database {database:?}: create it with CREATE DATABASE {} ENCODING \
                     'UTF8' TEMPLATE template0",
                    quoted(database)
                ),
                "42501" => format!(
                    "the user {user:?} lacks a right in the database {database:?} ({message}): make the user its \
                     owner, or run GRANT CREATE, USAGE ON SCHEMA public TO {} in it",
                    quoted(user)
                ),
                "53300" => format!("PostgreSQL {place} has no free connection ({message}): raise max_connections"),
                "57P03" => format!("PostgreSQL {place} is not ready yet ({message}): start Annals again later"),
                "25006" => read_only(&place),
                "08P01" if message.contains("startup parameter") => format!(
                    "the server {place} is a connection pooler that refuses a parameter ({message}): connect to \
                     PostgreSQL directly, or add it to ignore_startup_parameters and set pool_mode = session"
                ),
                "26000" | "42P05" => pooler(&place),
                _ if is_from_pooler(message) => format!("{error}. Its address is {place}"),
                _ => format!("PostgreSQL {place} reports: {message}"),
            }
        }
        DatabaseError::Driver(sqlx::Error::Io(failed)) => match tls_error(failed) {
            Some(fault) => format!("the connection to PostgreSQL {place} is not trusted: {fault}"),
            None => format!(
                "PostgreSQL is not reachable {place}: {failed}. Check the address, and that the server runs and \
                 accepts connections from this machine"
            ),
        },
        DatabaseError::Driver(sqlx::Error::Tls(fault)) => {
            let fault = fault.downcast_ref::<rustls::Error>().map_or_else(|| fault.to_string(), describe_tls);
            format!("the connection to PostgreSQL {place} cannot be encrypted: {fault}")
        }
        DatabaseError::TimedOut(_) => format!(
            "PostgreSQL {place} did not respond in time: check the address, and that no firewall drops the packets"
        ),
        DatabaseError::ReadOnly => read_only(&place),
        DatabaseError::NoPrimary(reasons) => {
            format!("no server of DATABASE_URL is a primary that accepts connections: {reasons}")
        }
        other => format!("PostgreSQL {place} cannot be used: {other}"),
    }
}

fn read_only(place: &str) -> String {
    format!(
        "PostgreSQL {place} is read-only: it is a standby, or default_transaction_read_only is on. Use the address \
         of the primary"
    )
}

/// Describes a connection pooler that gives a session to several connections.
pub(in crate::store) fn pooler(place: &str) -> String {
    format!(
        "the server {place} is a connection pooler in transaction mode, and Annals needs sessions of its own: \
         connect to PostgreSQL directly, or set pool_mode = session for this database"
    )
}

/// Returns the fault of TLS that has ended a connection.
fn tls_error(error: &std::io::Error) -> Option<String> {
    Some(describe_tls(error.get_ref()?.downcast_ref::<rustls::Error>()?))
}

/// Describes a certificate that cannot be trusted. A certificate that was made with older instructions has none of the
/// names that are compared today.
fn describe_tls(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(fault) = error else { return error.to_string() };
    match fault {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate of the server does not name the host in its extension subjectAltName (the common name \
             is not compared): sign it with openssl x509 -extfile, with subjectAltName=DNS:<host>, or use \
             sslmode=verify-ca"
                .to_owned()
        }
        CertificateError::UnknownIssuer => "the certificate of the server is not signed by a trusted certificate \
                                            authority: name the file of its certificate in sslrootcert"
            .to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate of the server has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate of the server is not valid yet: compare the clocks".to_owned()
        }
        CertificateError::Other(other) => describe_other(&other.to_string()),
        other => describe_other(&format!("{other:?}")),
    }
}

/// Describes faults for which the library has no variant of its own.
fn describe_other(fault: &str) -> String {
    if fault.contains("CaUsedAsEndEntity") {
        return "the certificate of the server is that of a certificate authority, which openssl req -x509 makes: \
                sign a certificate for the server with it (openssl x509 -extfile, with subjectAltName=DNS:<host>)"
            .to_owned();
    }
    if fault.contains("UnsupportedCertVersion") {
        return "the certificate of the server has version 1 of X.509 and no extensions: sign it with openssl x509 \
                -extfile, with subjectAltName=DNS:<host>"
            .to_owned();
    }
    format!("the certificate of the server is not valid: {fault}")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
