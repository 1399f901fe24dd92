{{- define "comity.name" -}}
{{ printf "%s-%s" .Release.Name .Values.role | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "comity.selector" -}}
app.kubernetes.io/name: comity
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.role }}
{{- end }}

{{- define "comity.labels" -}}
{{ include "comity.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "comity.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "comity.claim" -}}
{{ .Values.persistence.existingClaim | default (include "comity.name" .) }}
{{- end }}

{{/* Within the volume: where that is mounted belongs to root, and could not be made private. */}}
{{- define "comity.folder" -}}
/srv/comity/{{ eq .Values.role "coordinator" | ternary "coordinator" "party" }}
{{- end }}

{{/* What every container has in common. */}}
{{- define "comity.container" -}}
image: {{ include "comity.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- if or .Values.unsealing.existingSecret .Values.objectStorage.endpoint .Values.objectStorage.region .Values.extraEnv }}
env:
  {{- if .Values.unsealing.existingSecret }}
  - {name: COMITY_UNSEALING_KEY_FILE, value: /run/comity/unsealing-key}
  {{- end }}
  {{- with .Values.objectStorage.endpoint }}
  - {name: AWS_ENDPOINT_URL_S3, value: {{ . | quote }}}
  {{- end }}
  {{- with .Values.objectStorage.region }}
  - {name: AWS_REGION, value: {{ . | quote }}}
  - {name: AWS_DEFAULT_REGION, value: {{ . | quote }}}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- if or .Values.postgresql.existingSecret .Values.objectStorage.existingSecret .Values.extraEnvFrom }}
envFrom:
  {{- with .Values.postgresql.existingSecret }}
  - secretRef:
      name: {{ . }}
  {{- end }}
  {{- with .Values.objectStorage.existingSecret }}
  - secretRef:
      name: {{ . }}
  {{- end }}
  {{- with .Values.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
volumeMounts:
  - {name: data, mountPath: /srv/comity}
  - {name: temporary, mountPath: /tmp}
  - {name: memory, mountPath: /dev/shm}
  {{- if .Values.unsealing.existingSecret }}
  - {name: unsealing, mountPath: /run/comity, readOnly: true}
  {{- end }}
{{- end }}

{{/* What every pod has in common. */}}
{{- define "comity.pod" -}}
automountServiceAccountToken: false
{{- with .Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
enableServiceLinks: false
terminationGracePeriodSeconds: 30
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: data
    {{- if .Values.persistence.enabled }}
    persistentVolumeClaim:
      claimName: {{ include "comity.claim" . }}
    {{- else }}
    emptyDir: {sizeLimit: {{ .Values.persistence.size }}}
    {{- end }}
  - name: temporary
    emptyDir: {sizeLimit: 10Gi}
  - name: memory
    emptyDir: {medium: Memory, sizeLimit: {{ .Values.sharedMemory }}}
  {{- if and (eq .Values.role "coordinator") .Values.coordinator.tls.existingSecret }}
  - name: authority
    secret:
      secretName: {{ .Values.coordinator.tls.existingSecret }}
      defaultMode: 0440
      items:
        - {key: tls.crt, path: tls.crt}
        - {key: tls.key, path: tls.key}
  {{- end }}
  {{- with .Values.unsealing.existingSecret }}
  # root's, and the group may read it: a file of others' would be refused
  - name: unsealing
    secret:
      secretName: {{ . }}
      defaultMode: 0440
      items:
        - {key: unsealing-key, path: unsealing-key}
  {{- end }}
{{- end }}
