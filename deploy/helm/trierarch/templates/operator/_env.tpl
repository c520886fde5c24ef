{{/* What the operator is told about this release. */}}
{{- define "trierarch.operatorEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: TRIERARCH_OPERATOR_HOST
  value: 0.0.0.0
# Engine pods announce themselves from whatever namespace they are in.
- name: TRIERARCH_OPERATOR_ANNOUNCE_URL
  value: http://{{ include "trierarch.fullname" . }}-operator-announcements.{{ .Release.Namespace }}.svc:8081/announcements
- name: TRIERARCH_OPERATOR_ENGINE_IMAGE
  value: {{ include "trierarch.imageName" (dict "root" . "image" .Values.engine.image) }}
- name: TRIERARCH_OPERATOR_ENGINE_SERVICE_ACCOUNT
  value: {{ .Values.engine.serviceAccountName }}
{{- if .Values.engine.podTemplate }}
- name: TRIERARCH_OPERATOR_POD_TEMPLATE_FILE
  value: /etc/trierarch/engine/pod-template.yaml
{{- end }}
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
