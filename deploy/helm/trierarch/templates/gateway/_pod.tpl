{{/* The gateway's pod, for a Deployment or, with a spool that outlives it, a StatefulSet. */}}
{{- define "trierarch.gatewayPod" -}}
{{- $gateway := .Values.gateway -}}
{{- $drain := int ($gateway.settings.drainTimeoutSeconds | default 30) -}}
metadata:
  labels:
    {{- include "trierarch.labels" (dict "root" . "component" "gateway") | nindent 4 }}
  {{- with $gateway.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "trierarch.serviceAccountName" (dict "root" . "component" "gateway") }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  # Sleep before SIGTERM, the drain, the last usage into the ledger, and some room.
  terminationGracePeriodSeconds: {{ add $drain 30 }}
  initContainers:
    {{- include "trierarch.migrateContainer" (dict "root" . "component" "gateway") | nindent 4 }}
  containers:
    - name: gateway
      image: {{ include "trierarch.image" (dict "root" . "image" $gateway.image) }}
      imagePullPolicy: {{ include "trierarch.imagePullPolicy" (dict "root" . "image" $gateway.image) }}
      command: [{{ .Values.python | quote }}, "-m", "trierarch.gateway"]
      env:
        {{- include "trierarch.commonEnv" . | nindent 8 }}
        {{- include "trierarch.ledgerEnv" . | nindent 8 }}
        - name: TRIERARCH_GATEWAY_LEDGER_URL
          value: $(TRIERARCH_LEDGER_URL)
        - name: TRIERARCH_GATEWAY_HOST
          value: 0.0.0.0
        - name: TRIERARCH_GATEWAY_SPOOL_DIR
          value: /var/lib/trierarch/spool
        # A model that is scaled to zero starts because requests wait for it here.
        - name: TRIERARCH_GATEWAY_READY_WITHOUT_REPLICAS
          value: "true"
        {{- if and .Values.operator.enabled (not $gateway.settings.replicasUrl) (not $gateway.settings.staticReplicas) }}
        - name: TRIERARCH_GATEWAY_REPLICAS_URL
          value: {{ include "trierarch.replicasUrl" . }}
        {{- end }}
        {{- with .Values.tracing.otlpEndpoint }}
        - name: TRIERARCH_GATEWAY_OTLP_ENDPOINT
          value: {{ . | quote }}
        {{- end }}
        {{- include "trierarch.settingsEnv" (dict "prefix" "TRIERARCH_GATEWAY" "settings" $gateway.settings) | nindent 8 }}
        {{- with concat .Values.extraEnv $gateway.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: http
          containerPort: 8080
        - name: admin
          containerPort: 9090
      startupProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 5
        timeoutSeconds: 3
      lifecycle:
        preStop:
          # New requests still come until every node knows that this pod leaves.
          sleep: {seconds: 5}
      securityContext:
        {{- toYaml .Values.containerSecurityContext | nindent 8 }}
      {{- with $gateway.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: spool
          mountPath: /var/lib/trierarch
        - name: tmp
          mountPath: /tmp
        {{- with concat .Values.extraVolumeMounts $gateway.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- if not $gateway.spool.persistence.enabled }}
    - name: spool
      emptyDir: {}
    {{- end }}
    - name: tmp
      emptyDir: {}
    {{- with concat .Values.extraVolumes $gateway.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- include "trierarch.scheduling" $gateway | nindent 2 }}
{{- end }}
