{{- define "gaitfleet.bucketEnv" -}}
env:
  - {name: S3_BUCKET, value: gaitfleet}
  - name: AWS_ACCESS_KEY_ID
    valueFrom:
      secretKeyRef: {name: {{ include "gaitfleet.fullname" . }}-bucket, key: access-key-id}
  - name: AWS_SECRET_ACCESS_KEY
    valueFrom:
      secretKeyRef: {name: {{ include "gaitfleet.fullname" . }}-bucket, key: secret-access-key}
{{- end -}}
