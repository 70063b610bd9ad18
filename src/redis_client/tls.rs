//! TLS to a Redis: rustls on ring, the server's name always verified.

use crate::config::RedisTls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Does the handshake. The files are read each time: whoever renews them need not restart us.
pub(super) async fn connect(
    files: &RedisTls,
    host: &str,
    tcp: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let files = files.clone();
    let config = tokio::task::spawn_blocking(move || config(&files)).await??;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

fn config(files: &RedisTls) -> io::Result<ClientConfig> {
    // Another part of the process may have installed it: that is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = ClientConfig::builder();
    let builder = match &files.ca {
        None => builder
            .with_platform_verifier()
            .map_err(|error| io::Error::other(format!("the system's CA certificates: {error}")))?,
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| at(path, error))?;
            }
            builder.with_root_certificates(roots)
        }
    };
    match &files.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| at(key, error))?;
            builder
                .with_client_auth_cert(certificates(chain)?, private)
                .map_err(|error| at(chain, error))
        }
    }
}

/// The certificates of a PEM file, one at least.
fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| at(path, error))?;
    let certificates: Vec<_> = read
        .collect::<Result<_, _>>()
        .map_err(|error| at(path, error))?;
    match certificates.is_empty() {
        true => Err(at(path, "no certificate in it")),
        false => Ok(certificates),
    }
}

fn at(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}
