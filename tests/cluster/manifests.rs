//! Objects as people write them.

/// Returns a namespace.
pub(crate) fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n")
}

/// Returns a Service with one port; `more` goes into its metadata.
pub(crate) fn service(namespace: &str, name: &str, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    format!(
        "apiVersion: v1\nkind: Service\n\
         metadata: {{name: {name}, namespace: {namespace}{more}}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}\n---\n"
    )
}

/// Returns the one slice of a Service, with these addresses.
pub(crate) fn slice(namespace: &str, service: &str, addrs: &[&str]) -> String {
    let endpoints: Vec<_> = addrs
        .iter()
        .map(|addr| format!("{{addresses: [{addr}], conditions: {{ready: true}}}}"))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {service}-1, namespace: {namespace}, \
         labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{{name: \"\", port: 8080, protocol: TCP}}]\n\
         endpoints: [{}]\n---\n",
        endpoints.join(", ")
    )
}

/// Returns a node with an internal address and a zone.
pub(crate) fn node(name: &str, addr: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\n\
         metadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: zone-1}}}}\n\
         spec: {{podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24]}}\n\
         status: {{addresses: [{{type: InternalIP, address: {addr}}}]}}\n---\n"
    )
}
