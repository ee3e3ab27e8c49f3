//! TLS to etcd: the authority that signed its certificate, and the certificate that shows it who we are.
//!
//! No other authority than the given one is trusted: an etcd has its own, and one that the whole world trusts
//! would let the whole world in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, ClientConfig, RootCertStore, crypto::ring,
};

/// The line about a member that answers in plain text, or not at all.
pub(super) const NONE: &str = "it does not speak TLS: leave out --cluster-ca and write etcd://";

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificates of the authorities that may have signed etcd's.
    pub ca: PathBuf,
    /// Our certificate, with those between it and its authority, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Reads the files.
///
/// # Errors
/// One line that names the file and what is wrong with it.
pub fn connector(files: &Files) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("--cluster-ca", &files.ca)? {
        roots.add(certificate).map_err(|error| {
            format!("--cluster-ca {}: {error}: give it the authority's certificate", files.ca.display())
        })?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &files.identity else {
        return Ok(TlsConnector::from(Arc::new(builder.with_no_client_auth())));
    };
    let chain = certificates("--cluster-cert", certificate)?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("--cluster-key", key, &error))?;
    let config = builder.with_client_auth_cert(chain, private).map_err(|error| {
        let (certificate, key) = (certificate.display(), key.display());
        format!("--cluster-cert {certificate} and --cluster-key {key} do not belong together ({error})")
    })?;
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| unreadable(flag, path, &error))?;
    if read.is_empty() {
        return Err(format!(
            "{flag} {}: there is no certificate in it: it must be a PEM file",
            path.display()
        ));
    }
    Ok(read)
}

fn unreadable(flag: &str, path: &Path, error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    let path = path.display();
    if let Error::Io(error) = error {
        return format!("{flag} {path}: {error}");
    }
    format!("{flag} {path}: {error}: it must be a PEM file")
}

/// The fault, and how to mend it, if an error is one of TLS.
pub(super) fn explain(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error has the one of TLS inside, and not as its source.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(error) = inner.or_else(|| error.downcast_ref::<rustls::Error>()) {
            return Some(meaning(error));
        }
        next = error.source();
    }
    None
}

fn meaning(error: &rustls::Error) -> String {
    use rustls::Error;
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls has some fifty, and adds more")]
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate was signed by another authority than that of --cluster-ca".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for other names: name it in --cluster as the certificate does".to_owned(),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired, or the clock of this host is wrong".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "its certificate is not valid yet, or the clock of this host is wrong".to_owned(),
        // A server that gets no certificate of ours may call it a bad one.
        Error::AlertReceived(
            alert @ (AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied),
        ) => format!(
            "it wants a certificate of ours that its authority signed ({alert:?}): look at --cluster-cert and --cluster-key"
        ),
        Error::InvalidMessage(_) => NONE.to_owned(),
        error => error.to_string(),
    }
}
