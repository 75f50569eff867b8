//! etcd and kube-apiserver, with TLS and RBAC, and the real kubectl.

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use proxy_tests::{process, wait};
use tempfile::TempDir;

use crate::{credentials::Credentials, relay::Relay};

/// How long etcd and the API server may take to come up: half a minute in an emulated guest, and
/// several when others run beside it.
const START: Duration = Duration::from_mins(5);
/// The node that the source under test is on.
pub(crate) const NODE: &str = "node-a";

/// The first address of the cluster's Services: the API server's own.
const API_VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// A running cluster without nodes. Dropping it ends it.
pub(crate) struct Cluster {
    tools: PathBuf,
    directory: TempDir,
    credentials: Credentials,
    etcd_port: u16,
    api_port: u16,
    node: Option<Ipv4Addr>,
    processes: Mutex<Processes>,
}

#[derive(Default)]
struct Processes {
    etcd: Option<Child>,
    api: Option<Child>,
}

impl Cluster {
    /// Starts one that only this machine's loopback reaches, with an account for the agent.
    pub(crate) fn start() -> Result<Self> {
        let cluster = Self::start_empty()?;
        cluster.add_proxier("passlane")?;
        Ok(cluster)
    }

    /// Starts one where nobody has an account yet.
    pub(crate) fn start_empty() -> Result<Self> {
        Self::start_at(None)
    }

    /// Starts one for the node at this address and its pods.
    pub(crate) fn start_for(node: Ipv4Addr) -> Result<Self> {
        Self::start_at(Some(node))
    }

    fn start_at(node: Option<Ipv4Addr>) -> Result<Self> {
        let tools = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).context(
            "KUBEBUILDER_ASSETS names no directory with etcd, kube-apiserver and kubectl; \
             `cargo xtask test --level L5` builds one",
        )?;
        let directory = tempfile::tempdir()?;
        let addrs: Vec<_> = node.into_iter().chain(node.map(|_| API_VIP)).collect();
        let credentials = Credentials::make(directory.path(), &addrs)?;
        let (etcd_port, api_port) = (free_port()?, free_port()?);
        let processes = Mutex::default();
        let cluster = Self { tools, directory, credentials, etcd_port, api_port, node, processes };
        cluster.start_etcd()?;
        cluster.start_api()?;
        Ok(cluster)
    }

    /// Makes an account in kube-system with the role that every Service proxy has.
    pub(crate) fn add_proxier(&self, account: &str) -> Result<()> {
        self.kubectl(&["create", "serviceaccount", account, "-n", "kube-system"])?;
        let holder = format!("--serviceaccount=kube-system:{account}");
        let role = "--clusterrole=system:node-proxier";
        self.kubectl(&["create", "clusterrolebinding", account, role, &holder]).map(drop)
    }

    /// Runs kubectl as the administrator and returns what it printed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, "")
    }

    /// Makes or changes the objects of a manifest.
    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        self.kubectl_with(&["apply", "-f", "-"], manifest).map(drop)
    }

    /// Writes an object over the one that is there.
    pub(crate) fn replace(&self, manifest: &str) -> Result<()> {
        self.kubectl_with(&["replace", "-f", "-"], manifest).map(drop)
    }

    fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let kubeconfig = self.certificate_login("admin")?;
        let kubectl = self.tools.join("kubectl").display().to_string();
        let kubeconfig = kubeconfig.display().to_string();
        let cache = self.directory.path().join("cache").display().to_string();
        let mut all = vec!["--kubeconfig", &kubeconfig, "--cache-dir", &cache];
        all.extend(arguments);
        process::feed(&kubectl, &all, input)
    }

    /// Returns a client of the administrator, for what kubectl would take minutes to do.
    pub(crate) async fn client(&self) -> Result<kube::Client> {
        let path = self.directory.path().join("admin.kubeconfig");
        let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// The kubeconfig of the administrator.
    pub(crate) fn admin(&self) -> PathBuf {
        self.directory.path().join("admin.kubeconfig")
    }

    /// Returns a new relay to the API server.
    pub(crate) fn relay(&self) -> Result<Relay> {
        Relay::to(self.api_port)
    }

    /// Returns a new token of a service account in kube-system.
    pub(crate) fn token(&self, account: &str) -> Result<String> {
        self.kubectl(&["create", "token", account, "-n", "kube-system"])
    }

    /// Logs the agent's account in at the API server itself.
    pub(crate) fn direct_login(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        self.login(name, self.api_port, &self.token("passlane")?)
    }

    /// Writes a kubeconfig that logs in with a certificate that was made.
    pub(crate) fn certificate_login(&self, name: &str) -> Result<PathBuf> {
        let file = |kind: &str| self.credentials.text(&format!("{name}.{kind}"));
        let user = format!("client-certificate: {}\n    client-key: {}", file("crt"), file("key"));
        self.write_kubeconfig(name, self.api_port, &user)
    }

    /// The port of the API server.
    pub(crate) fn api_port(&self) -> u16 {
        self.api_port
    }

    /// A directory for the files of this cluster's processes.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Writes a kubeconfig that logs in at this port with the token in a file, and returns both.
    pub(crate) fn login(&self, name: &str, port: u16, token: &str) -> Result<(PathBuf, PathBuf)> {
        let file = self.directory.path().join(format!("{name}.token"));
        fs::write(&file, token)?;
        let user = format!("tokenFile: {}", file.display());
        Ok((self.write_kubeconfig(name, port, &user)?, file))
    }

    /// Where the API server listens, and relays to it.
    fn host(&self) -> Ipv4Addr {
        self.node.unwrap_or(Ipv4Addr::LOCALHOST)
    }

    fn write_kubeconfig(&self, name: &str, port: u16, user: &str) -> Result<PathBuf> {
        let path = self.directory.path().join(format!("{name}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters:\n- name: test\n  cluster:\n    server: https://{}:{port}\n    \
             certificate-authority: {}\n\
             contexts:\n- name: test\n  context: {{cluster: test, user: test}}\n\
             users:\n- name: test\n  user:\n    {user}\n",
            self.host(),
            self.credentials.text("ca.crt")
        );
        fs::write(&path, text)?;
        Ok(path)
    }

    fn start_etcd(&self) -> Result<()> {
        let (client, peer) = (address("http", self.etcd_port), address("http", free_port()?));
        let child = self.spawn(
            "etcd",
            &[
                format!("--data-dir={}", self.directory.path().join("etcd").display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                // Nothing outlives the test.
                "--unsafe-no-fsync".to_owned(),
                "--log-level=error".to_owned(),
            ],
        )?;
        self.processes().etcd = Some(child);
        Ok(())
    }

    fn start_api(&self) -> Result<()> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.credentials.text(name));
        let mut arguments = vec![
            format!("--etcd-servers={}", address("http", self.etcd_port)),
            "--etcd-compaction-interval=0".to_owned(),
            format!("--bind-address={}", self.host()),
            format!("--secure-port={}", self.api_port),
            file("tls-cert-file", "api.crt"),
            file("tls-private-key-file", "api.key"),
            file("client-ca-file", "ca.crt"),
            "--authorization-mode=Node,RBAC".to_owned(),
            // As in every cluster that has a kube-proxy.
            "--allow-privileged=true".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            file("service-account-key-file", "sa.pub"),
            file("service-account-signing-key-file", "sa.key"),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            // Nobody has such policies, and their schemas are half of the work of starting.
            "--disable-admission-plugins=MutatingAdmissionPolicy,ValidatingAdmissionPolicy"
                .to_owned(),
        ];
        arguments.extend(match self.node {
            Some(node) => vec![
                format!("--advertise-address={node}"),
                file("kubelet-client-certificate", "admin.crt"),
                file("kubelet-client-key", "admin.key"),
            ],
            // A loopback address cannot be advertised; nobody looks for this one.
            None => ["--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none"]
                .map(str::to_owned)
                .to_vec(),
        });
        let child = self.spawn("kube-apiserver", &arguments)?;
        self.processes().api = Some(child);
        wait::until_true("the API server is ready", START, || {
            if let Some(api) = &mut self.processes().api
                && let Some(status) = api.try_wait()?
            {
                bail!("kube-apiserver ended, {status}: {}", self.last_lines("kube-apiserver"));
            }
            self.is_ready()
        })
    }

    fn is_ready(&self) -> Result<bool> {
        self.get("/readyz").map(|text| text == "ok")
    }

    /// Returns what the API server has at a path. For what is asked again and again: starting
    /// kubectl takes seconds in an emulated guest, from the API server too.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let file = |name| self.credentials.text(name);
        let url = format!("https://{}:{}{path}", self.host(), self.api_port);
        let [ca, certificate, key] = [file("ca.crt"), file("admin.crt"), file("admin.key")];
        let words = ["-sSf", "--cacert", &ca, "--cert", &certificate, "--key", &key, &url];
        process::run("curl", &words)
    }

    /// Returns the object, or the list of objects, at a path.
    pub(crate) fn object(&self, path: &str) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.get(path)?)?)
    }

    /// Ends the API server; what it has stored stays.
    pub(crate) fn stop_api(&self) {
        end(&mut self.processes().api);
    }

    /// Starts the API server again: it remembers no changes, only what is there.
    pub(crate) fn restart_api(&self) -> Result<()> {
        self.stop_api();
        self.start_api()
    }

    /// Makes etcd forget all older versions of all objects.
    pub(crate) fn compact(&self) -> Result<()> {
        let post = |path: &str, body: &str| {
            let url = format!("{}{path}", address("http", self.etcd_port));
            process::run("curl", &["-sSf", "-X", "POST", "-d", body, &url])
        };
        // The key is any; the header of the answer says the revision.
        let answer: serde_json::Value =
            serde_json::from_str(&post("/v3/kv/range", r#"{"key":"YQ=="}"#)?)?;
        let revision = answer["header"]["revision"].as_str().context("etcd says no revision")?;
        let body = format!(r#"{{"revision":"{revision}","physical":true}}"#);
        post("/v3/kv/compaction", &body).map(drop)
    }

    fn spawn(&self, program: &str, arguments: &[String]) -> Result<Child> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log(program))?;
        Command::new("setpriv")
            // Ends with this process, however that ends.
            .args(["--pdeathsig", "KILL", "--"])
            .arg(self.tools.join(program))
            .args(arguments)
            // Memory is at hand, and time is not.
            .env("GOGC", "400")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {program}"))
    }

    fn log(&self, program: &str) -> PathBuf {
        self.directory.path().join(format!("{program}.log"))
    }

    fn last_lines(&self, program: &str) -> String {
        last_lines(&self.log(program)).unwrap_or_default()
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut processes = self.processes();
        let Processes { etcd, api } = &mut *processes;
        end(api);
        end(etcd);
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn last_lines(log: &Path) -> Result<String> {
    let text = fs::read_to_string(log)?;
    let lines: Vec<_> = text.lines().rev().take(5).collect();
    Ok(lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
}

fn address(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}

/// Returns a port that is free now; nothing else on this machine takes ports at random meanwhile.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
