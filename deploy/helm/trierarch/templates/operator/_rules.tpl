{{/* What the operator may do with namespaced objects, and nothing more. */}}
{{- define "trierarch.operatorRules" -}}
- apiGroups: [trierarch.dev]
  resources: [modeldeployments]
  verbs: [list, watch, patch]
- apiGroups: [trierarch.dev]
  resources: [modeldeployments/status, tenants/status]
  verbs: [patch]
- apiGroups: [trierarch.dev]
  resources: [tenants]
  verbs: [list, watch]
- apiGroups: [ray.io]
  resources: [rayservices]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [ray.io]
  resources: [rayclusters]
  verbs: [list, watch, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}

{{/* What it may do with objects that have no namespace, also where it serves only some. */}}
{{- define "trierarch.operatorClusterRules" -}}
- apiGroups: [trierarch.dev]
  resources: [acceleratorclasses, pricebooks]
  verbs: [list, watch]
# Whether an announcement comes from an engine's pod.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- end }}
