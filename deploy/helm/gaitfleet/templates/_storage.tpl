{{/*
Development storage: a StatefulSet with one pod, its Service and its policy.
Call with (dict "root" $ "component" "database" "port" 27017 "user" 10004 "container" "<yaml of more container fields>").
*/}}
{{- define "gaitfleet.storage" -}}
{{- $name := printf "%s-%s" (include "gaitfleet.fullname" .root) .component }}
{{- $values := index .root.Values .component }}
{{- $selector := include "gaitfleet.selector" . }}
{{- $claim := ternary (printf "%s %s" $values.persistence.size $values.persistence.storageClassName | trim) "" $values.persistence.enabled }}
{{- with lookup "apps/v1" "StatefulSet" .root.Release.Namespace $name }}
{{- $was := ternary (dig "metadata" "annotations" "gaitfleet/claim" $claim .) "" (not (empty .spec.volumeClaimTemplates)) }}
{{- if ne $was $claim }}
{{- $made := ternary "without a claim" (printf "with a claim of %s" $was) (empty $was) }}
{{- $said := "%s.persistence cannot change while the StatefulSet is there, made %s: set it back, or first `kubectl -n %s delete statefulset %s` (an emptyDir loses its data then; a claim keeps them, and its size)" }}
{{- fail (printf $said $.component $made $.root.Release.Namespace $name) }}
{{- end }}
{{- end }}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  labels:
    {{- include "gaitfleet.labels" . | nindent 4 }}
  annotations:
    gaitfleet/claim: {{ $claim | quote }}  # what an upgrade compares; an API server writes sizes in a way of its own
spec:
  replicas: 1
  serviceName: {{ $name }}
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "gaitfleet.podLabels" . | nindent 8 }}
    spec:
      {{- include "gaitfleet.podBasics" (dict "root" .root "account" .component "user" .user) | nindent 6 }}
      {{- include "gaitfleet.scheduling" $values | nindent 6 }}
      terminationGracePeriodSeconds: 30
      containers:
        - name: {{ .component }}
          image: {{ include "gaitfleet.image" (dict "root" .root "image" $values.image) }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          securityContext:
            {{- include "gaitfleet.containerSecurity" . | nindent 12 }}
          ports:
            - {name: server, containerPort: {{ .port }}}
          {{- with .container }}
          {{- . | nindent 10 }}
          {{- end }}
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: tmp, mountPath: /tmp}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          startupProbe:
            tcpSocket: {port: server}
            periodSeconds: 2
            failureThreshold: 150
          readinessProbe:
            tcpSocket: {port: server}
            periodSeconds: 5
          livenessProbe:
            tcpSocket: {port: server}
            periodSeconds: 20
            timeoutSeconds: 10
            failureThreshold: 6
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 256Mi}
        {{- if not $values.persistence.enabled }}
        - name: data
          emptyDir: {sizeLimit: {{ $values.persistence.size }}}
        {{- end }}
  {{- if $values.persistence.enabled }}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $values.persistence.storageClassName }}
        storageClassName: {{ . | quote }}
        {{- end }}
        resources: {requests: {storage: {{ $values.persistence.size }}}}
  {{- end }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels:
    {{- include "gaitfleet.labels" . | nindent 4 }}
spec:
  selector:
    {{- $selector | nindent 4 }}
  ports:
    - {name: server, port: {{ .port }}, targetPort: server, protocol: TCP}
{{- if .root.Values.networkPolicy.enabled }}
---
# Only the replay API comes in; nothing goes out.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $name }}
  labels:
    {{- include "gaitfleet.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- $selector | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
    - from:
        - podSelector:
            matchLabels:
              {{- include "gaitfleet.selector" (dict "root" .root "component" "replay-api") | nindent 14 }}
      ports: [{port: {{ .port }}, protocol: TCP}]
{{- end }}
{{- end -}}
