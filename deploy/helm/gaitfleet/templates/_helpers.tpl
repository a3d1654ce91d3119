{{/* Base of all names; leaves room for the longest suffix within 63 characters. */}}
{{- define "gaitfleet.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- end -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Selector of one component; must never change. Call with (dict "root" $ "component" "rollout"). */}}
{{- define "gaitfleet.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "gaitfleet.labels" -}}
{{ include "gaitfleet.selector" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: gaitfleet
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Labels of a pod: without versions, so that a new chart alone restarts nobody. */}}
{{- define "gaitfleet.podLabels" -}}
{{ include "gaitfleet.selector" . }}
app.kubernetes.io/part-of: gaitfleet
{{- with .more }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "gaitfleet.podAnnotations" -}}
{{- $all := dict -}}
{{- if and .port .root.Values.monitoring.annotations -}}
{{- $all = dict "prometheus.io/scrape" "true" "prometheus.io/port" (toString .port) "prometheus.io/path" "/metrics" -}}
{{- end -}}
{{- $all = mergeOverwrite $all (.more | default dict) -}}
{{- with $all }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* Call with (dict "root" $ "image" .Values.rollout.image). */}}
{{- define "gaitfleet.image" -}}
{{- $name := .image.repository -}}
{{- with .root.Values.image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if .image.digest -}}
{{ $name }}@{{ .image.digest }}
{{- else -}}
{{ $name }}:{{ .image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/*
Replicas that respect `kubectl scale`. Rendering the value always would conflict with a live count under server-side apply
(or reset it without); never rendering it would drop a count that helm set before. So: the live count is kept for as long as
the value is the one that this object was last rendered with. Call with (dict "root" $ "kind" "Deployment" "name" … "value" …).
*/}}
{{- define "gaitfleet.replicas" -}}
{{- if not (kindIs "invalid" .value) -}}
{{- $live := lookup "apps/v1" .kind .root.Release.Namespace .name -}}
{{- if and $live (eq (dig "metadata" "annotations" "gaitfleet/initial-replicas" "" $live) (toString .value)) -}}
replicas: {{ $live.spec.replicas | int }}
{{- else -}}
replicas: {{ .value | int }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Alive is who works: the main loop touches this file every second, also while it waits for others. Missing, it is not there
yet. Five minutes are more than the longest turn of the loop (a GPU's first update, which compiles).
*/}}
{{- define "gaitfleet.progressProbe" -}}
exec: {command: [sh, -c, "test ! -e /tmp/progress || find /tmp/progress -mmin -5 | grep -q ."]}
periodSeconds: 20
timeoutSeconds: 10
failureThreshold: 3
{{- end -}}

{{/* Pod security "restricted": of the pod. Call with a user id. */}}
{{- define "gaitfleet.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Pod security "restricted": of a container. */}}
{{- define "gaitfleet.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* What every pod's spec begins with. Call with (dict "root" $ "account" "rollout" "user" 10003). */}}
{{- define "gaitfleet.podBasics" -}}
serviceAccountName: {{ include "gaitfleet.fullname" .root }}-{{ .account }}
automountServiceAccountToken: false  # nobody here talks to the Kubernetes API
enableServiceLinks: false  # or every Service of the namespace would appear among the variables
securityContext:
  {{- include "gaitfleet.podSecurity" .user | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a pod may run. Call with the component's values. */}}
{{- define "gaitfleet.scheduling" -}}
{{- range $field := list "nodeSelector" "affinity" "tolerations" "topologySpreadConstraints" "priorityClassName" }}
{{- with index $ $field }}
{{ $field }}:{{ if kindIs "string" . }} {{ quote . }}{{ else }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "gaitfleet.apiUrl" -}}
http://{{ include "gaitfleet.fullname" . }}-replay-api:{{ .Values.replayApi.service.port }}
{{- end -}}

{{- define "gaitfleet.tokensSecret" -}}
{{ .Values.tokens.existingSecret | default (printf "%s-tokens" (include "gaitfleet.fullname" .)) }}
{{- end -}}

{{/* A volume with one role's token. Call with (dict "root" $ "role" "rollout"). */}}
{{- define "gaitfleet.tokenVolume" -}}
name: token
secret:
  secretName: {{ include "gaitfleet.tokensSecret" .root | quote }}
  defaultMode: 0440
  items: [{key: {{ .role }}, path: token}]
{{- end -}}

{{/* Changes when, and only when, the experiment does. */}}
{{- define "gaitfleet.runHash" -}}
{{ printf "%s\n%s" .Values.run.name .Values.run.experiment | sha256sum | trunc 10 }}
{{- end -}}
