{{- define "pacs-cbir.labels" -}}
app.kubernetes.io/name: pacs-cbir
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pacs-cbir.claim" -}}
{{ .Values.data.existingClaim | default (printf "%s-data" .Release.Name) }}
{{- end }}

{{/* A container's environment: what the chart decides, then the site's settings, as JSON where they are no text. */}}
{{- define "pacs-cbir.environment" -}}
- {name: PACS_CBIR_SETTINGS_FILE, value: /run/secrets/pacs-cbir/settings.toml}
- {name: PACS_CBIR_DATA_DIR, value: /var/lib/pacs-cbir}
- {name: PACS_CBIR_DICOM_HOST, value: 0.0.0.0}
- {name: PACS_CBIR_DICOM_PORT, value: "11112"}
- {name: PACS_CBIR_HTTP_HOST, value: 0.0.0.0}
- {name: PACS_CBIR_HTTP_PORT, value: "8000"}
- {name: PACS_CBIR_API_URL, value: "http://{{ .Release.Name }}-api:8000"}
- {name: PACS_CBIR_SCP_METRICS_PORT, value: "9112"}
{{- range $name, $value := .Values.settings }}
- name: PACS_CBIR_{{ upper $name }}
  value: {{ (kindIs "string" $value | ternary $value (toJson $value)) | quote }}
{{- end }}
{{- end }}

{{/* What every pod has; called with the root, the name of the part, its seconds to end in, and the secret's file. */}}
{{- define "pacs-cbir.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .seconds }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
volumes:
  - name: tmp
    emptyDir: {}
  - name: settings
    secret:
      secretName: {{ .root.Values.secret }}
      items: [{key: {{ .file }}, path: settings.toml}]
  {{- if ne .part "migrate" }}
  - name: data
    persistentVolumeClaim: {claimName: {{ include "pacs-cbir.claim" .root }}}
  {{- end }}
{{- end }}

{{- define "pacs-cbir.container" -}}
name: {{ .part }}
image: "{{ .root.Values.image.name }}:{{ .gpu | ternary .root.Values.gpu.tag .root.Values.image.tag }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
env:
  {{- include "pacs-cbir.environment" .root | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources:
  {{- $resources := deepCopy (index .root.Values .part).resources }}
  {{- if .gpu }}
  {{- $_ := mergeOverwrite $resources (dict "limits" (dict "nvidia.com/gpu" 1)) }}
  {{- end }}
  {{- toYaml $resources | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: settings, mountPath: /run/secrets/pacs-cbir, readOnly: true}
  {{- if ne .part "migrate" }}
  - {name: data, mountPath: /var/lib/pacs-cbir}
  {{- end }}
{{- end }}
