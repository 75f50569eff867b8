//! What runs on the node, as people write it.

use super::{
    image::{self, SERVED},
    network::LB_ADDR,
};

/// Everybody's namespace.
pub(crate) const SPACE: &str = "shop";
/// The Service of two pods.
pub(crate) const WEB_VIP: &str = "10.96.0.10";
/// The Service of one pod.
pub(crate) const SOLO_VIP: &str = "10.96.0.11";
pub(crate) const NODE_PORT: u16 = 30080;

/// Returns a Deployment of servers that say their version and name. A pod that ends is out of all
/// slices before its server ends.
pub(crate) fn servers(name: &str, replicas: u8, version: &str) -> String {
    let script = format!(
        "echo {version} $HOSTNAME > {SERVED}/index.html && exec httpd -f -p 8080 -h {SERVED}"
    );
    format!(
        "apiVersion: apps/v1\nkind: Deployment\n\
         metadata: {{name: {name}, namespace: {SPACE}}}\n\
         spec:\n  \
           replicas: {replicas}\n  \
           selector: {{matchLabels: {{app: {name}}}}}\n  \
           strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}\n  \
           template:\n    \
             metadata: {{labels: {{app: {name}}}}}\n    \
             spec:\n      \
               automountServiceAccountToken: false\n      \
               enableServiceLinks: false\n      \
               terminationGracePeriodSeconds: 10\n      \
               containers:\n      \
               - name: server\n        \
                 image: {}\n        \
                 imagePullPolicy: Never\n        \
                 command: [sh, -c, '{script}']\n        \
                 readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1, \
                                   timeoutSeconds: 5}}\n        \
                 lifecycle: {{preStop: {{sleep: {{seconds: 8}}}}}}\n---\n",
        image::NAME
    )
}

/// Returns a pod that only waits to be used as a client.
pub(crate) fn client() -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: client, namespace: {SPACE}}}\n\
         spec:\n  \
           automountServiceAccountToken: false\n  \
           terminationGracePeriodSeconds: 0\n  \
           containers:\n  \
           - {{name: client, image: {}, imagePullPolicy: Never}}\n---\n",
        image::NAME
    )
}

/// Returns the Services of the servers.
pub(crate) fn services() -> String {
    let service = |name: &str, kind: &str, vip: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {SPACE}}}\n\
             spec: {{type: {kind}, clusterIP: {vip}, selector: {{app: {name}}}, \
             ports: [{{port: 80, targetPort: 8080{more}}}]}}\n---\n"
        )
    };
    let node_port = format!(", nodePort: {NODE_PORT}");
    service("web", "LoadBalancer", WEB_VIP, &node_port)
        + &service("solo", "ClusterIP", SOLO_VIP, "")
}

/// Returns what a controller of load balancers writes into a Service's status.
pub(crate) fn announced() -> String {
    format!(r#"{{"status": {{"loadBalancer": {{"ingress": [{{"ip": "{LB_ADDR}"}}]}}}}}}"#)
}
