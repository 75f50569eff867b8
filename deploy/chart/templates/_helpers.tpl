{{- define "passlane.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "passlane.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "passlane.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "passlane.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "passlane.selector" -}}
app.kubernetes.io/name: {{ include "passlane.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "passlane.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "passlane.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: service-proxy
app.kubernetes.io/part-of: passlane
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "passlane.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "passlane.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "passlane.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* A document of YAML as a dict; what it is, if it cannot be read. */ -}}
{{- define "passlane.parsed" -}}
{{- $parsed := fromYaml .text -}}
{{- if hasKey $parsed "Error" -}}
{{- fail (printf "kubeProxyConfig: %s is no YAML: %s" .what (get $parsed "Error")) -}}
{{- end -}}
{{- toYaml $parsed -}}
{{- end -}}

{{- /* The KubeProxyConfiguration that the agent gets. */ -}}
{{- define "passlane.config" -}}
{{- $given := .Values.kubeProxyConfig -}}
{{- if kindIs "string" $given -}}
{{- $given = fromYaml (include "passlane.parsed" (dict "text" $given "what" "the text")) -}}
{{- end -}}
{{- if eq (toString (get $given "kind")) "ConfigMap" -}}
{{- $text := index (default dict $given.data) "config.conf" | default "" -}}
{{- if not $text -}}
{{- fail "kubeProxyConfig: this ConfigMap has no key config.conf" -}}
{{- end -}}
{{- $given = fromYaml (include "passlane.parsed" (dict "text" $text "what" "config.conf")) -}}
{{- end -}}
{{- $config := dict "apiVersion" "kubeproxy.config.k8s.io/v1alpha1" "kind" "KubeProxyConfiguration" -}}
{{- $config = mergeOverwrite $config (deepCopy $given) -}}
{{- if $config.clientConnection -}}
{{- $_ := unset $config.clientConnection "kubeconfig" -}}
{{- end -}}
{{- if .Values.passlane -}}
{{- $_ := set $config "passlane" (mergeOverwrite (default dict $config.passlane) (deepCopy .Values.passlane)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- /* The port of an address such as 0.0.0.0:10256, or the default. */ -}}
{{- define "passlane.port" -}}
{{- $port := regexFind "[0-9]+$" (default "" .address) -}}
{{- if contains ":" (default "" .address) }}{{ $port }}{{ else }}{{ .default }}{{ end -}}
{{- end -}}

{{- define "passlane.healthzPort" -}}
{{- $config := fromYaml (include "passlane.config" .) -}}
{{- include "passlane.port" (dict "address" $config.healthzBindAddress "default" 10256) -}}
{{- end -}}

{{- define "passlane.monitored" -}}
{{- if or .Values.podMonitor.enabled .Values.serviceMonitor.enabled }}yes{{ end -}}
{{- end -}}

{{- /* What the flag says; empty where the configuration decides. */ -}}
{{- define "passlane.metricsAddress" -}}
{{- if .Values.metrics.bindAddress -}}
{{- .Values.metrics.bindAddress -}}
{{- else if include "passlane.monitored" . -}}
0.0.0.0:10249
{{- end -}}
{{- end -}}

{{- define "passlane.metricsPort" -}}
{{- $config := fromYaml (include "passlane.config" .) -}}
{{- $address := default $config.metricsBindAddress (include "passlane.metricsAddress" .) -}}
{{- include "passlane.port" (dict "address" $address "default" 10249) -}}
{{- end -}}

{{- /* Hosts' directories; both containers and the cleanup see them at the same place. */ -}}
{{- define "passlane.volumes" -}}
- name: modules
  hostPath: {path: /lib/modules}
- name: bpffs
  hostPath: {path: /sys/fs/bpf, type: Directory}
- name: state
  hostPath: {path: /run/passlane, type: DirectoryOrCreate}
- name: snapshots
  hostPath: {path: /var/lib/passlane, type: DirectoryOrCreate}
{{- end -}}

{{- define "passlane.hostMounts" -}}
- {name: modules, mountPath: /lib/modules, readOnly: true}
- {name: state, mountPath: /run/passlane}
- {name: snapshots, mountPath: /var/lib/passlane}
{{- end -}}
