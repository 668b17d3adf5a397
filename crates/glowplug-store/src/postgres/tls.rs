//! Encrypted connections, as the `sslmode` and `sslrootcert` of the URL ask for them.
//!
//! The modes mean what they mean to PostgreSQL's own programs: `prefer` (if there is none) and `require`
//! encrypt and believe any certificate, unless `sslrootcert` names one to check by; `verify-full` checks the
//! certificate and the name in it, by `sslrootcert` or by what the system trusts.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_postgres_rustls::MakeRustlsConnect;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Encrypt, and believe the server whoever it is.
    Anybody,
    /// Certificates in this PEM file.
    File(PathBuf),
    /// What the system trusts.
    System,
}

/// Says what is wrong with the certificates, for people.
pub(super) fn connector(trust: &Trust) -> Result<MakeRustlsConnect, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?;
    let config = match trust {
        Trust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Believer(provider)))
            .with_no_client_auth(),
        Trust::File(_) | Trust::System => {
            builder.with_root_certificates(roots(trust)?).with_no_client_auth()
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

fn roots(trust: &Trust) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let added = match trust {
        Trust::File(path) => {
            let path = path.display();
            let problem = |error: &dyn std::fmt::Display| format!("cannot read {path}: {error}");
            let certificates = CertificateDer::pem_file_iter(path.to_string())
                .map_err(|error| problem(&error))?
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| problem(&error))?;
            store.add_parsable_certificates(certificates)
        }
        _ => store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    match (added, trust) {
        ((0, _), Trust::File(path)) => {
            Err(format!("{} has no certificate; name a PEM file", path.display()))
        }
        ((0, _), _) => {
            Err("the system trusts no certificates; install its certificates or set `sslrootcert`"
                .to_owned())
        }
        _ => Ok(store),
    }
}

/// Checks that whoever answers has the key of the certificate, but not whose certificate it is.
#[derive(Debug)]
struct Believer(Arc<CryptoProvider>);

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
