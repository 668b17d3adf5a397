//! Whose certificates a webhook's receiver may show.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::TlsConnector;

use super::limits::CA_FILE_BYTES_MAX;

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("cannot read the authorities for webhooks in {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{path} holds no certificate in PEM that can be trusted; name another file as `ca_file` below \
         [node.webhooks]"
    )]
    Empty { path: PathBuf },
    #[error(
        "this system trusts no authority, so no webhook can be called over https; install the package \
         `ca-certificates`, or name a file as `ca_file` below [node.webhooks]"
    )]
    Nobody,
    #[error("the TLS library refuses to start: {source}")]
    Tls {
        #[from]
        source: rustls::Error,
    },
}

/// Reads the authorities of a file.
pub(super) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let fault = |source| TrustError::Read { path: path.to_owned(), source };
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(CA_FILE_BYTES_MAX + 1).read_to_end(&mut pem))
        .map_err(fault)?;
    let empty = || TrustError::Empty { path: path.to_owned() };
    if pem.len() as u64 > CA_FILE_BYTES_MAX {
        let problem = format!("it is larger than {CA_FILE_BYTES_MAX} bytes");
        return Err(fault(io::Error::other(problem)));
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|_| empty())?;
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(found.iter().cloned()) {
        (1.., 0) => Ok(found),
        _ => Err(empty()),
    }
}

/// Trusts the system's authorities and `further` ones. Reads files.
pub(super) fn connector(further: Vec<CertificateDer<'static>>) -> Result<TlsConnector, TrustError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for problem in &system.errors {
        tracing::warn!("an authority of this system cannot be read: {problem}");
    }
    roots.add_parsable_certificates(system.certs);
    roots.add_parsable_certificates(further);
    if roots.is_empty() {
        return Err(TrustError::Nobody);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
