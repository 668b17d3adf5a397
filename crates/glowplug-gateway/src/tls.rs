//! The node's own certificate authority, so that clients which insist on TLS can be pointed at it.
//!
//! On first use it makes `ca/ca.key` (readable by its owner only) and `ca/ca.pem` (for clients to trust)
//! in the data directory. The server's certificate is made from them in memory at each start, and again
//! before it expires. Nothing else is ever signed.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use glowplug_core::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::forward::Clock;
use crate::proxy::FAL_HOSTS;

const AUTHORITY_NAME: &str = "Glowplug local authority";
const AUTHORITY_DAYS: u32 = 3_650;
const SERVER_DAYS: u32 = 90;
/// Before the server's certificate expires, when a new one is made.
const RENEWAL_DAYS: u32 = 30;
const DAY: Duration = Duration::from_hours(24);
/// Clocks of callers that run behind ours still accept a new certificate.
const BACKDATED: Duration = DAY;
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is not a private key; delete {folder} to make a new authority: {source}")]
    Key { path: PathBuf, folder: PathBuf, source: rcgen::Error },
    #[error("cannot make a certificate: {source}")]
    Certificate {
        #[from]
        source: rcgen::Error,
    },
    #[error("the TLS library refuses the certificate: {source}")]
    Tls {
        #[from]
        source: rustls::Error,
    },
}

/// The authority of one data directory.
pub struct LocalAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
}

impl fmt::Debug for LocalAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalAuthority")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl LocalAuthority {
    /// Opens the authority of a data directory, making it on first use.
    pub fn open(data_dir: &Path, now: Timestamp) -> Result<Self, AuthorityError> {
        let folder = data_dir.join("ca");
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            // The certificate in it is for everyone.
            .mode(0o755)
            .create(&folder)
            .map_err(|source| AuthorityError::Write { path: folder.clone(), source })?;
        let key = open_key(&folder)?;
        let params = authority_params(now)?;
        let certificate = folder.join("ca.pem");
        if !certificate.exists() {
            // Clients go on trusting an earlier copy of it: name and key are the same.
            let pem = params.self_signed(&key)?.pem();
            write_new(&certificate, &pem, 0o644)?;
        }
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The file that clients are told to trust.
    pub fn certificate_path(&self) -> &Path {
        &self.certificate
    }

    fn server_certificate(
        &self,
        names: &ServerNames,
        now: Timestamp,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Glowplug");
        params.subject_alt_names.clone_from(&names.0);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, SERVER_DAYS);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = provider.key_provider.load_private_key(key)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
    }
}

fn open_key(folder: &Path) -> Result<KeyPair, AuthorityError> {
    let path = folder.join("ca.key");
    match fs::read_to_string(&path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|source| AuthorityError::Key {
            path,
            folder: folder.to_owned(),
            source,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate()?;
            // Whatever certificate is there belongs to a key that is lost.
            let stale = folder.join("ca.pem");
            match fs::remove_file(&stale) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(AuthorityError::Write { path: stale, source });
                }
                _ => {}
            }
            write_new(&path, &key.serialize_pem(), 0o600)?;
            Ok(key)
        }
        Err(source) => Err(AuthorityError::Read { path, source }),
    }
}

/// Through a second name, so that no half-written file is ever taken for the real one.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let draft = path.with_extension("new");
    let write = || {
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|source| AuthorityError::Write { path: path.to_owned(), source })
}

fn authority_params(now: Timestamp) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, AUTHORITY_DAYS);
    Ok(params)
}

/// In whole calendar days (UTC).
fn set_validity(params: &mut CertificateParams, now: Timestamp, days: u32) {
    let moment = |at: Timestamp| {
        let micros = i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
        let at = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        let part = |part: i8| u8::try_from(part).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    let backdated = u64::try_from(BACKDATED.as_micros()).unwrap_or(0);
    let from = Timestamp::from_micros(now.as_micros().saturating_sub(backdated));
    params.not_before = moment(from);
    params.not_after = moment(now + DAY * days);
}

/// What the server's certificate is good for.
#[derive(Clone, Debug)]
struct ServerNames(Vec<SanType>);

impl ServerNames {
    fn new(listen: IpAddr) -> Result<Self, AuthorityError> {
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if !listen.is_unspecified() && !addresses.contains(&listen) {
            addresses.push(listen);
        }
        let mut names: Vec<SanType> = addresses.into_iter().map(SanType::IpAddress).collect();
        for host in std::iter::once("localhost").chain(FAL_HOSTS.map(|(host, _)| host)) {
            names.push(SanType::DnsName(host.try_into()?));
        }
        Ok(Self(names))
    }
}

/// Makes the server's certificate, and a new one in time.
struct Certificates {
    authority: Arc<LocalAuthority>,
    names: ServerNames,
    clock: Clock,
    provider: Arc<CryptoProvider>,
    current: Mutex<(Timestamp, Arc<CertifiedKey>)>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = (self.clock)();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= current.0 {
            match self.authority.server_certificate(&self.names, now, &self.provider) {
                Ok(key) => *current = (renewal(now), Arc::new(key)),
                Err(error) => tracing::error!(%error, "the server's certificate was not renewed"),
            }
        }
        Some(current.1.clone())
    }
}

fn renewal(now: Timestamp) -> Timestamp {
    now + DAY * (SERVER_DAYS - RENEWAL_DAYS)
}

/// How the gateway speaks TLS on `listen`.
pub(crate) fn server_config(
    authority: &Arc<LocalAuthority>,
    listen: IpAddr,
    clock: Clock,
) -> Result<Arc<rustls::ServerConfig>, AuthorityError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let names = ServerNames::new(listen)?;
    let now = clock();
    let first = authority.server_certificate(&names, now, &provider)?;
    let certificates = Certificates {
        authority: authority.clone(),
        names,
        clock,
        provider: provider.clone(),
        current: Mutex::new((renewal(now), Arc::new(first))),
    };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
