{{/*
Pod of a rollout worker. It gets one token and the address of the replay API; no secret of database or bucket.
Call with (dict "root" $ "component" "rollout" "role" "train" "values" …): the values of the component over those of rollout.
*/}}
{{- define "gaitfleet.rolloutPod" -}}
{{- $values := .values -}}
metadata:
  labels:
    {{- include "gaitfleet.podLabels" (dict "root" .root "component" .component "more" $values.podLabels) | nindent 4 }}
    gaitfleet/api-client: "true"
  {{- with include "gaitfleet.podAnnotations" (dict "root" .root "port" 9090 "more" $values.podAnnotations) }}
  annotations:
    {{- . | nindent 4 }}
  {{- end }}
spec:
  {{- include "gaitfleet.podBasics" (dict "root" .root "account" "rollout" "user" 10003) | nindent 2 }}
  {{- include "gaitfleet.scheduling" $values | nindent 2 }}
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  containers:
    - name: rollout
      image: {{ include "gaitfleet.image" (dict "root" .root "image" $values.image) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      securityContext:
        {{- include "gaitfleet.containerSecurity" . | nindent 8 }}
      ports:
        - {name: metrics, containerPort: 9090}
      env:
        - {name: GAITFLEET_ROLLOUT_REPLAY_API_URL, value: {{ include "gaitfleet.apiUrl" .root | quote }}}
        - {name: GAITFLEET_ROLLOUT_RUN, value: {{ .root.Values.run.name | quote }}}
        - {name: GAITFLEET_ROLLOUT_ROLE, value: {{ .role }}}
        - {name: GAITFLEET_ROLLOUT_TOKEN_FILE, value: /etc/gaitfleet/token/token}
        # stated, because a process sees all cores of the node whatever its pod may use
        - {name: GAITFLEET_ROLLOUT_SIMULATORS, value: {{ $values.simulators | quote }}}
        - {name: GAITFLEET_ROLLOUT_MEMORY_LIMIT_MB, value: {{ $values.memoryLimitMb | quote }}}
        - {name: GAITFLEET_ROLLOUT_SPOOL_DIR, value: /var/spool/gaitfleet}
        - {name: GAITFLEET_ROLLOUT_SPOOL_MAX_BYTES, value: {{ $values.spoolMaxBytes | int64 | quote }}}
        - {name: GAITFLEET_ROLLOUT_STOP_TIMEOUT_SECONDS, value: {{ $values.stopSeconds | quote }}}
        - {name: GAITFLEET_ROLLOUT_METRICS_PORT, value: "9090"}
        - {name: GAITFLEET_ROLLOUT_PROGRESS_FILE, value: /tmp/progress}
        - {name: GAITFLEET_ROLLOUT_LOG_LEVEL, value: {{ $values.logLevel }}}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - {name: token, mountPath: /etc/gaitfleet/token, readOnly: true}
        - {name: spool, mountPath: /var/spool/gaitfleet}
        - {name: tmp, mountPath: /tmp}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      startupProbe:
        httpGet: {path: /metrics, port: metrics}
        periodSeconds: 3
        failureThreshold: 100  # importing takes long on a busy node
      livenessProbe:
        {{- include "gaitfleet.progressProbe" . | nindent 8 }}
  volumes:
    - {{- include "gaitfleet.tokenVolume" (dict "root" .root "role" "rollout") | nindent 6 }}
    # survives a crash of the container; what is in it when the pod goes was not acknowledged to anybody; beside the spool's
    # own limit there is room for the episodes under way
    - name: spool
      emptyDir: {sizeLimit: {{ add 256 (div (int64 $values.spoolMaxBytes) 1048576) }}Mi}
    - name: tmp
      emptyDir: {sizeLimit: 256Mi}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
