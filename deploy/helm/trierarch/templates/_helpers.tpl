{{/* Names, labels, images, and the parts that all pods share. */}}

{{- define "trierarch.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Prefix of object names; short enough that "-postgresql-0" and a hash still fit. */}}
{{- define "trierarch.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "trierarch.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "trierarch.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* What never changes in the life of an object. Arguments: root, component. */}}
{{- define "trierarch.selectorLabels" -}}
app.kubernetes.io/name: {{ include "trierarch.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Arguments: root, component. */}}
{{- define "trierarch.labels" -}}
{{ include "trierarch.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: trierarch
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Arguments: root, image (a component's own parts). */}}
{{- define "trierarch.image" -}}
{{- $image := merge (deepCopy .image) .root.Values.image -}}
{{- if and .image.tag (not .image.digest) }}{{ $_ := set $image "digest" "" }}{{ end -}}
{{- include "trierarch.imageName" (dict "root" .root "image" $image) -}}
{{- end }}

{{/* Arguments: root, image (complete). */}}
{{- define "trierarch.imageName" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "trierarch.imagePullPolicy" -}}
{{- .image.pullPolicy | default .root.Values.image.pullPolicy -}}
{{- end }}

{{/* Name of a component's service account. Arguments: root, component. */}}
{{- define "trierarch.serviceAccountName" -}}
{{- $account := (get .root.Values .component).serviceAccount -}}
{{- if $account.create -}}
{{- $account.name | default (printf "%s-%s" (include "trierarch.fullname" .root) .component) -}}
{{- else -}}
{{- $account.name | default "default" -}}
{{- end -}}
{{- end }}

{{/* Address of the ledger and what its driver needs, as environment variables. */}}
{{- define "trierarch.ledgerEnv" -}}
{{- if .Values.ledger.existingSecret.name -}}
- name: TRIERARCH_LEDGER_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.ledger.existingSecret.name }}
      key: {{ .Values.ledger.existingSecret.key }}
{{- else -}}
# The driver takes the password from its own variable, so that no address contains it.
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "trierarch.postgresqlSecretName" . }}
      key: password
- name: TRIERARCH_LEDGER_URL
  value: postgresql+psycopg://trierarch@{{ include "trierarch.fullname" . }}-postgresql:5432/trierarch
{{- end }}
{{- end }}

{{- define "trierarch.postgresqlSecretName" -}}
{{- .Values.postgresql.existingSecret | default (printf "%s-postgresql" (include "trierarch.fullname" .)) -}}
{{- end }}

{{/* Environment of every Trierarch container. */}}
{{- define "trierarch.commonEnv" -}}
# The folder a process starts in is no place for its modules.
- name: PYTHONSAFEPATH
  value: "1"
- name: PYTHONDONTWRITEBYTECODE
  value: "1"
- name: HOME
  value: /tmp
# The pod's user has a number and perhaps no name, which libraries ask for.
- name: USER
  value: trierarch
{{- end }}

{{/* `settings` as environment variables. Arguments: prefix, settings. */}}
{{- define "trierarch.settingsEnv" -}}
{{- range $name, $value := .settings }}
- name: {{ printf "%s_%s" $.prefix ($name | snakecase | upper) }}
  value: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ $value | toJson | quote }}{{ end }}
{{- end }}
{{- end }}

{{/* An init container that waits for the database and brings its tables up to date.
     Every process does the same when it opens the ledger; here its reason is seen in the
     pod's status. Several at once take turns. Arguments: root, component. */}}
{{- define "trierarch.migrateContainer" -}}
{{- $values := get .root.Values .component -}}
- name: migrate
  image: {{ include "trierarch.image" (dict "root" .root "image" $values.image) }}
  imagePullPolicy: {{ include "trierarch.imagePullPolicy" (dict "root" .root "image" $values.image) }}
  command: [{{ .root.Values.python | quote }}, "-m", "trierarch.adapters.ledger"]
  env:
    {{- include "trierarch.commonEnv" .root | nindent 4 }}
    {{- include "trierarch.ledgerEnv" .root | nindent 4 }}
    - name: TRIERARCH_LEDGER_WAIT_SECONDS
      value: {{ .root.Values.ledger.waitSeconds | quote }}
    {{- with concat .root.Values.extraEnv $values.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  securityContext:
    {{- toYaml .root.Values.containerSecurityContext | nindent 4 }}
  {{- with $values.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: tmp
      mountPath: /tmp
    {{- with concat .root.Values.extraVolumeMounts $values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Where a component's pods may run. Arguments: the component's values. */}}
{{- define "trierarch.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Address of the list of replicas that gateways read. */}}
{{- define "trierarch.replicasUrl" -}}
http://{{ include "trierarch.fullname" . }}-operator:8081/replicas
{{- end }}
