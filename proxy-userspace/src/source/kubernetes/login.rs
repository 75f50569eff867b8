//! Where the API server is, and how we show who we are.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use http::{HeaderValue, Uri};
use kube::{
    Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// Where a pod finds its service account's token.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// What is given to find the API server.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// `--kubeconfig`. Without one, the service account of the pod is used.
    pub kubeconfig: Option<PathBuf>,
    /// Addresses of API servers, tried in turn, instead of the one in the kubeconfig or in the
    /// pod's environment: `https://10.0.0.1:6443`, or `10.0.0.1:6443`.
    pub api_servers: Vec<String>,
}

/// The API server cannot be reached for a reason on this node.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// Neither a kubeconfig nor a pod's service account nor an address.
    #[error(
        "no API server is known: {0}; give --kubeconfig, or run in a pod with a service account"
    )]
    Nowhere(#[source] InClusterError),
    /// An address that is none.
    #[error("API server {text:?} is no address; write https://HOST:PORT")]
    Address {
        /// What was given.
        text: String,
    },
    /// A way that is not supported.
    #[error(
        "kubeconfig: proxy-url {0} is not supported; remove it, the node must reach the API server directly"
    )]
    Proxy(Uri),
    /// The token file cannot be read.
    #[error("read token file {}: {source}; mount it, or correct tokenFile in the kubeconfig", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The token has characters that no header may have.
    #[error("token file {} holds no token; write the token and nothing else", .0.display())]
    NoToken(PathBuf),
    /// The client cannot be made, for instance because of a certificate.
    #[error("set up the client for {address}: {source}")]
    Client {
        /// The API server.
        address: String,
        /// Cause.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Login {
    /// Returns the addresses to try, in order; at least one.
    ///
    /// # Errors
    ///
    /// Nothing says where the API server is, or what says it cannot be read.
    pub(super) async fn addresses(&self) -> Result<Vec<Uri>, LoginError> {
        if self.api_servers.is_empty() {
            return Ok(vec![self.config().await?.cluster_url]);
        }
        self.api_servers.iter().map(|text| address(text)).collect()
    }

    /// Reads everything anew: certificates and tokens are renewed in place.
    pub(super) async fn config(&self) -> Result<Config, LoginError> {
        let config =
            match &self.kubeconfig {
                Some(path) => from_kubeconfig(path).await?,
                None if self.api_servers.is_empty() => {
                    Config::incluster_env().map_err(LoginError::Nowhere)?
                }
                None if Path::new(POD_TOKEN).exists() => {
                    Config::incluster_dns().map_err(LoginError::Nowhere)?
                }
                // An address alone is enough for an API server that asks for nothing.
                None => Config::new(self.api_servers.first().map_or_else(
                    || Ok(Uri::from_static("https://localhost")),
                    |text| address(text),
                )?),
            };
        match config.proxy_url {
            Some(url) => Err(LoginError::Proxy(url)),
            None => Ok(config),
        }
    }
}

async fn from_kubeconfig(path: &Path) -> Result<Config, LoginError> {
    let failed =
        |source| LoginError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)
}

fn address(text: &str) -> Result<Uri, LoginError> {
    let invalid = || LoginError::Address { text: text.to_owned() };
    let full = match text.contains("://") {
        true => text.to_owned(),
        false => format!("https://{text}"),
    };
    let uri: Uri = full.parse().map_err(|_| invalid())?;
    let scheme = uri.scheme_str().is_some_and(|scheme| matches!(scheme, "https" | "http"));
    let host = uri.authority().is_some_and(|authority| {
        let alone = authority.host() == authority.as_str();
        !authority.host().is_empty() && (alone || authority.port_u16().is_some())
    });
    if scheme && host { Ok(uri) } else { Err(invalid()) }
}

/// Returns the IP address in an address, when it is one and no name.
pub(super) fn ip_of(address: &Uri) -> Option<IpAddr> {
    address.host()?.trim_matches(['[', ']']).parse().ok()
}

/// Reads a token file into the header that carries it.
pub(super) async fn bearer(path: &Path) -> Result<HeaderValue, LoginError> {
    let token = tokio::fs::read_to_string(path)
        .await
        .map_err(|source| LoginError::Token { path: path.to_owned(), source })?;
    let token = token.trim();
    let header = HeaderValue::from_str(&format!("Bearer {token}"));
    match header {
        Ok(mut value) if !token.is_empty() => {
            value.set_sensitive(true);
            Ok(value)
        }
        _ => Err(LoginError::NoToken(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_the_scheme_and_nothing_else() {
        for (text, expected) in [
            ("https://10.0.0.1:6443", "https://10.0.0.1:6443/"),
            ("10.0.0.1:6443", "https://10.0.0.1:6443/"),
            ("api.example", "https://api.example/"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), expected);
        }
        for text in ["", "ftp://10.0.0.1", "https://", "10.0.0.1:port", "a b"] {
            let error = address(text).unwrap_err().to_string();
            assert!(error.contains("write https://HOST:PORT"), "{text}: {error}");
        }
    }

    #[test]
    fn the_ip_of_an_address_is_found_in_both_families() {
        let ip = |text: &str| ip_of(&address(text).unwrap()).map(|ip| ip.to_string());
        assert_eq!(ip("10.0.0.1:6443").as_deref(), Some("10.0.0.1"));
        assert_eq!(ip("https://[fd00::1]:6443").as_deref(), Some("fd00::1"));
        assert_eq!(ip("api.example"), None);
    }

    #[tokio::test]
    async fn a_token_may_end_in_a_newline_and_must_be_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc\n").unwrap();
        assert_eq!(bearer(file.path()).await.unwrap(), "Bearer abc");
        std::fs::write(file.path(), "\n").unwrap();
        assert!(matches!(bearer(file.path()).await, Err(LoginError::NoToken(_))));
        assert!(matches!(bearer(Path::new("/nowhere")).await, Err(LoginError::Token { .. })));
    }

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_read_is_named() {
        let login = Login { kubeconfig: Some("/nowhere/kubeconfig".into()), ..Login::default() };
        let error = login.addresses().await.unwrap_err().to_string();
        assert!(error.starts_with("kubeconfig /nowhere/kubeconfig: "), "{error}");
    }

    #[tokio::test]
    async fn given_addresses_go_before_the_one_of_the_kubeconfig() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
            clusters: [{name: a, cluster: {server: 'https://10.0.0.9:6443'}}]\n\
            contexts: [{name: a, context: {cluster: a, user: a}}]\n\
            users: [{name: a, user: {tokenFile: /token}}]\n";
        std::fs::write(file.path(), text).unwrap();
        let mut login = Login { kubeconfig: Some(file.path().to_owned()), api_servers: Vec::new() };
        assert_eq!(login.addresses().await.unwrap(), ["https://10.0.0.9:6443/"]);
        login.api_servers = vec!["10.0.0.1:6443".into(), "10.0.0.2:6443".into()];
        let addresses = login.addresses().await.unwrap();
        assert_eq!(addresses, ["https://10.0.0.1:6443/", "https://10.0.0.2:6443/"]);
    }
}
