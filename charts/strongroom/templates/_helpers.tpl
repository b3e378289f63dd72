{{- define "strongroom.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of everything in the release's namespace. At most 50 characters, so that suffixes fit. */}}
{{- define "strongroom.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "strongroom.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "strongroom.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "strongroom.selectorLabels" -}}
app.kubernetes.io/name: {{ include "strongroom.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "strongroom.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "strongroom.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: strongroom
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "strongroom.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "strongroom.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "strongroom.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* Every token as [{…hsms entry}]: the software token first, then the real ones. */}}
{{- define "strongroom.hsms" -}}
{{- $all := list }}
{{- with .Values.softhsm }}
{{- if .enabled }}
{{- $all = append $all (dict "name" .name "profile" "softhsm" "module" .module "tokenLabel" .tokenLabel "pinSecret" .pinSecret
      "environment" (dict "SOFTHSM2_CONF" "/etc/strongroom/softhsm2.conf")) }}
{{- end }}
{{- end }}
{{- $all = concat $all .Values.hsms }}
{{- if not $all }}
{{- fail "no HSM: list one under hsms, or set softhsm.enabled for a first try" }}
{{- end }}
{{- $names := list }}
{{- range $all }}
{{- if has .name $names }}
{{- fail (printf "two HSMs are named %q (hsms, softhsm.name)" .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- toYaml $all }}
{{- end }}

{{/* The ConfigMap's data. */}}
{{- define "strongroom.configuration" -}}
config.yaml: |
  namespace: {{ .Release.Namespace }}
  serviceAccount: {{ include "strongroom.serviceAccountName" . }}
  hsms:
  {{- range include "strongroom.hsms" . | fromYamlArray }}
    {{- $pin := ternary (dict "pinFile" (printf "/run/strongroom/pins/%s/pin" .name)) dict (hasKey . "pinSecret") }}
    - {{ omit . "pinSecret" | merge $pin | toYaml | indent 6 | trim }}
  {{- end }}
  api:
    enabled: {{ .Values.apiService.enabled }}
    port: 10250
    serviceName: {{ include "strongroom.fullname" . }}
  audit:
    {{- toYaml .Values.audit | nindent 4 }}
  secrets:
    {{- toYaml .Values.secrets | nindent 4 }}
  metricsPort: 8080
  workers: {{ .Values.workers | toJson }}
  relistSeconds: {{ .Values.relistSeconds | toJson }}
  logLevel: {{ .Values.logLevel }}
{{- if .Values.softhsm.enabled }}
softhsm2.conf: |
  directories.tokendir = /var/lib/strongroom/softhsm
  objectstore.backend = file
  log.level = ERROR
  slots.removable = false
init-softhsm.py: |
  {{- .Files.Get "files/init-softhsm.py" | nindent 2 }}
{{- end }}
{{- end }}

{{/* The digest in the name makes a change roll the pod, and the ConfigMap can be immutable: the operator, which may
     update ConfigMaps of its namespace (its ledgers), cannot change its own configuration. */}}
{{- define "strongroom.configMapName" -}}
{{- printf "%s-%s" (include "strongroom.fullname" .) (include "strongroom.configuration" . | sha256sum | trunc 10) }}
{{- end }}
