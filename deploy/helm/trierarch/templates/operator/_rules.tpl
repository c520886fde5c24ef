{{/* What the operator may do with namespaced objects, and nothing more. */}}
{{- define "trierarch.operatorRules" -}}
- apiGroups: [trierarch.dev]
  resources: [modeldeployments, tenants]
  verbs: [get, list, watch, patch]
- apiGroups: [trierarch.dev]
  resources: [modeldeployments/status, tenants/status]
  verbs: [get, patch]
- apiGroups: [ray.io]
  resources: [rayservices]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* What it reads of objects without a namespace. */}}
{{- define "trierarch.operatorClusterRules" -}}
- apiGroups: [trierarch.dev]
  resources: [acceleratorclasses, pricebooks]
  verbs: [get, list, watch]
{{- end }}
