{{/* What the operator is told about this release. */}}
{{- define "trierarch.operatorEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: TRIERARCH_OPERATOR_LEDGER_URL
  value: $(TRIERARCH_LEDGER_URL)
{{- if eq .Values.rbac.scope "namespace" }}
- name: TRIERARCH_OPERATOR_NAMESPACES
  value: {{ include "trierarch.watchedNamespaces" . | quote }}
{{- end }}
{{- if .Values.gateway.enabled }}
- name: TRIERARCH_OPERATOR_GATEWAY_ADMIN_URL
  value: http://{{ include "trierarch.fullname" . }}-gateway-admin:9090
{{- end }}
{{- with .Values.tracing.otlpEndpoint }}
- name: TRIERARCH_OPERATOR_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{/* A JSON list: settings are read as JSON. */}}
{{- define "trierarch.watchedNamespaces" -}}
{{- .Values.rbac.namespaces | default (list .Release.Namespace) | toJson -}}
{{- end }}
