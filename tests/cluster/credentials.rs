//! Certificates, keys and tokens of a test cluster, made with openssl.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use proxy_tests::process::run;

/// Where the files are.
pub(crate) struct Credentials {
    directory: PathBuf,
}

impl Credentials {
    /// Makes a CA, the API server's certificate, for loopback and these addresses, an
    /// administrator's, and the key that signs the tokens of service accounts.
    pub(crate) fn make(directory: &Path, addrs: &[Ipv4Addr]) -> Result<Self> {
        let made = Self { directory: directory.to_owned() };
        // Without the extensions that the system's configuration adds.
        fs::write(made.path("openssl.cnf"), "[req]\ndistinguished_name = name\n[name]\n")?;
        made.certificate("ca", "/CN=test-ca", None, "basicConstraints=critical,CA:TRUE")?;
        let mut names = "subjectAltName=IP:127.0.0.1,DNS:localhost".to_owned();
        addrs.iter().for_each(|addr| names.push_str(&format!(",IP:{addr}")));
        made.certificate("api", "/CN=kube-apiserver", Some("ca"), &names)?;
        made.client("admin", "/O=system:masters/CN=admin")?;
        run("openssl", &["genrsa", "-out", &made.text("sa.key"), "2048"])?;
        let public = made.text("sa.pub");
        run("openssl", &["rsa", "-in", &made.text("sa.key"), "-pubout", "-out", &public])?;
        Ok(made)
    }

    /// Makes the certificate of a client.
    pub(crate) fn client(&self, name: &str, subject: &str) -> Result<()> {
        self.certificate(name, subject, Some("ca"), "extendedKeyUsage=clientAuth")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn certificate(&self, name: &str, subject: &str, ca: Option<&str>, extra: &str) -> Result<()> {
        let file = |kind: &str| self.text(&format!("{name}.{kind}"));
        let (config, key, certificate) = (self.text("openssl.cnf"), file("key"), file("crt"));
        let mut arguments = vec!["req", "-x509", "-new", "-newkey", "ec", "-pkeyopt"];
        arguments.extend(["ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-config", &config]);
        arguments.extend(["-keyout", &key, "-out", &certificate, "-subj", subject]);
        arguments.extend(["-addext", extra]);
        let signed =
            ca.map(|ca| [self.text(&format!("{ca}.crt")), self.text(&format!("{ca}.key"))]);
        if let Some([certificate, key]) = &signed {
            arguments.extend(["-CA", certificate, "-CAkey", key]);
        }
        run("openssl", &arguments).map(drop)
    }

    /// Makes of a good token one that expired an hour ago, signed as the API server signs.
    pub(crate) fn expired(&self, token: &str) -> Result<String> {
        let mut parts = token.trim().split('.');
        let (header, payload) =
            parts.next().zip(parts.next()).context("a token has three parts")?;
        let mut claims: serde_json::Value = serde_json::from_slice(&self.decode(payload)?)?;
        let made = claims["iat"].as_i64().context("a token says when it was made")?;
        for (claim, time) in [("iat", made - 7200), ("nbf", made - 7200), ("exp", made - 3600)] {
            claims[claim] = time.into();
        }
        let signed = format!("{header}.{}", self.encode(claims.to_string().as_bytes())?);
        fs::write(self.path("signed"), &signed)?;
        let (key, signature) = (self.text("sa.key"), self.text("signature"));
        let file = self.text("signed");
        run("openssl", &["dgst", "-sha256", "-sign", &key, "-out", &signature, &file])?;
        Ok(format!("{signed}.{}", self.encode(&fs::read(signature)?)?))
    }

    fn encode(&self, bytes: &[u8]) -> Result<String> {
        fs::write(self.path("plain"), bytes)?;
        let text = run("openssl", &["base64", "-A", "-in", &self.text("plain")])?;
        Ok(text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_"))
    }

    fn decode(&self, text: &str) -> Result<Vec<u8>> {
        let mut standard = text.replace('-', "+").replace('_', "/");
        while !standard.len().is_multiple_of(4) {
            standard.push('=');
        }
        let (from, to) = (self.text("encoded"), self.text("decoded"));
        fs::write(&from, standard)?;
        run("openssl", &["base64", "-d", "-A", "-in", &from, "-out", &to])?;
        Ok(fs::read(to)?)
    }
}
