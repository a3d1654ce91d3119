{{/*
Pod spec of a script that speaks to the replay API with the admin token, in the API's image (which has the contract's code).
Call with (dict "root" $ "script" "create_run.py").
*/}}
{{- define "gaitfleet.scriptPod" -}}
{{- include "gaitfleet.podBasics" (dict "root" .root "account" "run" "user" 10001) }}
restartPolicy: Never
{{- include "gaitfleet.scheduling" .root.Values.run }}
containers:
  - name: script
    image: {{ include "gaitfleet.image" (dict "root" .root "image" .root.Values.replayApi.image) }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    securityContext:
      {{- include "gaitfleet.containerSecurity" . | nindent 6 }}
    command: [python, /etc/gaitfleet/run/{{ .script }}]
    env:
      - {name: API_URL, value: {{ include "gaitfleet.apiUrl" .root | quote }}}
      - {name: RUN, value: {{ .root.Values.run.name | quote }}}
      - {name: TOKEN_FILE, value: /etc/gaitfleet/token/token}
      - {name: EXPERIMENT_FILE, value: /etc/gaitfleet/run/experiment.yaml}
      - {name: WAIT_SECONDS, value: {{ .root.Values.run.waitSeconds | quote }}}
    volumeMounts:
      - {name: token, mountPath: /etc/gaitfleet/token, readOnly: true}
      - {name: run, mountPath: /etc/gaitfleet/run, readOnly: true}
      - {name: tmp, mountPath: /tmp}
    resources:
      requests: {cpu: 10m, memory: 128Mi}
      limits: {memory: 256Mi}
volumes:
  - {{- include "gaitfleet.tokenVolume" (dict "root" .root "role" "admin") | nindent 4 }}
  - name: run
    configMap: {name: {{ include "gaitfleet.fullname" .root }}-run}
  - name: tmp
    emptyDir: {sizeLimit: 64Mi}
{{- end -}}
