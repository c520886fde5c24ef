{{/* Rules that join several values. Each fails with a sentence that says what to change. */}}
{{- define "trierarch.validate" -}}
{{- $values := .Values -}}
{{- $ledger := $values.ledger.existingSecret.name -}}
{{- if and $ledger $values.postgresql.enabled -}}
{{- fail (printf "Two ledgers: ledger.existingSecret.name is '%s' and postgresql.enabled is true. Set postgresql.enabled=false to use your own database, or leave the secret's name empty to use the bundled one." $ledger) -}}
{{- end -}}
{{- if and (not $ledger) (not $values.postgresql.enabled) -}}
{{- fail "No ledger: set ledger.existingSecret.name to a Secret that holds the address of a PostgreSQL database, or postgresql.enabled=true for the bundled server." -}}
{{- end -}}
{{- $gateway := $values.gateway -}}
{{- if $gateway.enabled -}}
{{- if and (not $values.operator.enabled) (not $gateway.settings.replicasUrl) (not $gateway.settings.staticReplicas) -}}
{{- fail "The gateway has no list of replicas: operator.enabled is false, so set gateway.settings.replicasUrl or gateway.settings.staticReplicas." -}}
{{- end -}}
{{- if and $gateway.ingress.enabled (not $gateway.ingress.hosts) -}}
{{- fail "gateway.ingress.enabled is true but gateway.ingress.hosts is empty: name at least one host." -}}
{{- end -}}
{{- if and $gateway.httpRoute.enabled (not $gateway.httpRoute.parentRefs) -}}
{{- fail "gateway.httpRoute.enabled is true but gateway.httpRoute.parentRefs is empty: name the Gateway it belongs to." -}}
{{- end -}}
{{- with $gateway.autoscaling -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- fail (printf "gateway.autoscaling.minReplicas (%d) is above gateway.autoscaling.maxReplicas (%d)." (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if and .enabled (not (dig "requests" "cpu" "" $gateway.resources)) -}}
{{- fail "gateway.autoscaling.enabled is true but gateway.resources.requests.cpu is not set: the use of CPU has nothing to be compared with." -}}
{{- end -}}
{{- end -}}
{{- if and $gateway.service.nodePort (eq $gateway.service.type "ClusterIP") -}}
{{- fail "gateway.service.nodePort is set but gateway.service.type is ClusterIP: set the type to NodePort, or leave the port out." -}}
{{- end -}}
{{- end -}}
{{- if and $values.rbac.namespaces (eq $values.rbac.scope "cluster") -}}
{{- fail "rbac.namespaces is set but rbac.scope is cluster: set rbac.scope=namespace, or leave the list empty to serve every namespace." -}}
{{- end -}}
{{- if and (not $values.operator.serviceAccount.create) (not $values.operator.serviceAccount.name) $values.rbac.create $values.operator.enabled -}}
{{- fail "operator.serviceAccount.create is false and its name is empty: the operator's roles would be bound to the namespace's default account, and so to every pod. Name an account." -}}
{{- end -}}
{{- end }}
