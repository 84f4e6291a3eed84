//! Certificates: those of the settings, and one made for the embedded default.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::maildir::disk::Disk;
use crate::settings::TlsFiles;

pub fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, String> {
    let place = files.certificate.display();
    let certificates: Vec<CertificateDer> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|cause| format!("[tls] certificate: cannot read {place}: {cause}"))?;
    if certificates.is_empty() {
        return Err(format!(
            "[tls] certificate: {place} holds no certificate in PEM"
        ));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|cause| format!("[tls] key: cannot read {}: {cause}", files.key.display()))?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|cause| {
            format!("[tls]: certificate {place} and key do not go together: {cause}")
        })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// For a relay: only certificates of these authorities count.
pub fn connector(authorities: &Path) -> Result<TlsConnector, String> {
    let place = authorities.display();
    let certificates = CertificateDer::pem_file_iter(authorities)
        .map_err(|cause| format!("[relay] authorities: cannot read {place}: {cause}"))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates.flatten());
    if added == 0 {
        return Err(format!(
            "[relay] authorities: {place} holds no certificate in PEM"
        ));
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Makes a certificate that its own key signs, if the files are not there.
pub fn make_own(files: &TlsFiles, names: &[&str], disk: &Disk) -> Result<(), String> {
    if files.certificate.exists() && files.key.exists() {
        return Ok(());
    }
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|cause| format!("cannot make a certificate: {cause}"))?;
    for (path, pem) in [
        (&files.key, made.signing_key.serialize_pem()),
        (&files.certificate, made.cert.pem()),
    ] {
        disk.replace(path, pem.as_bytes())
            .map_err(|failure| failure.to_string())?;
    }
    Ok(())
}
