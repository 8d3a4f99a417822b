{{- define "lethe.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "lethe.fullname" -}}
{{- $name := include "lethe.name" . -}}
{{- $fullname := printf "%s-%s" .Release.Name $name -}}
{{- if .Values.fullnameOverride -}}
{{- $fullname = .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- $fullname = .Release.Name -}}
{{- end -}}
{{- $fullname = $fullname | trunc 50 | trimSuffix "-" -}}
{{- /* Helm takes 1lethe and a.b for releases; Kubernetes takes neither for a Service. */}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $fullname) -}}
{{- fail (printf "%s can't be the name of a Service: set fullnameOverride, lethe for example" $fullname) -}}
{{- end -}}
{{- $fullname -}}
{{- end -}}

{{- define "lethe.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lethe.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lethe.ownLabels" -}}
{{ include "lethe.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The labels of an object with some of its own, which win over commonLabels; the chart's win over both. */}}
{{- define "lethe.labelsWith" -}}
{{- merge (fromYaml (include "lethe.ownLabels" .root)) (.labels | default dict) (.root.Values.commonLabels | default dict) | toYaml -}}
{{- end -}}

{{- define "lethe.labels" -}}
{{- include "lethe.labelsWith" (dict "root" . "labels" dict) -}}
{{- end -}}

{{- define "lethe.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "lethe.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "lethe.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "lethe.keysSecretName" -}}
{{- default (printf "%s-keys" (include "lethe.fullname" .)) .Values.keys.existingSecret -}}
{{- end -}}

{{- define "lethe.ledgerClaimName" -}}
{{- default (printf "%s-ledger" (include "lethe.fullname" .)) .Values.ledger.volume.existingClaim -}}
{{- end -}}

{{/*
Nothing that is, or holds, a folder of the system, of the operator, or one that it is given: a volume there could
bring code that runs with the right to read Secrets.
*/}}
{{- define "lethe.directory" -}}
{{- if regexMatch "^/((bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|run|sbin|sys|tmp|usr)(/.*)?|(home|home/lethe|opt|opt/lethe|var|var/lib|var/lib/lethe|var/run)|(home/lethe|opt/lethe|var/lib/lethe|var/run)/.*)$" . -}}
{{- fail (printf "backups.directories: %s is the system's or the operator's own; mount it below /backups" .) -}}
{{- end -}}
{{- . -}}
{{- end -}}

{{/*
How large /tmp may get, where the ledger is copied for a backup (docs/install.md): as large as the ledger, and 256Mi.
Nothing if nobody says how large that is. What is in M is taken for Mi, which is more.
*/}}
{{- define "lethe.tmpSize" -}}
{{- $volume := .Values.ledger.volume -}}
{{- if .Values.ledger.urlSecretRef.name -}}
256Mi
{{- else if not $volume.existingClaim -}}
{{- $mebibytes := dict "M" 1 "G" 1024 "T" 1048576 -}}
{{- $unit := regexFind "[MGT]" $volume.size -}}
{{- add 256 (mul (regexFind "^[0-9]+" $volume.size | int64) (get $mebibytes $unit)) -}}Mi
{{- end -}}
{{- end -}}

{{/* What is cluster-wide and belongs to one release carries the namespace too: another release may have its name. */}}
{{- define "lethe.clusterName" -}}
{{- printf "%s.%s" (include "lethe.fullname" .) .Release.Namespace -}}
{{- end -}}

{{/*
A generated file of files/, whose comments end here, as documents that `helm uninstall` leaves alone. A policy that
fills in what a person left out is missing where Kubernetes is older than it; there the others say what to write.
*/}}
{{- define "lethe.kept" -}}
{{- range $text := regexSplit "(?m)^---$" .text -1 }}
{{- $document := fromYaml $text }}
{{- if or (not (hasPrefix "Mutating" $document.kind)) ($.root.Capabilities.APIVersions.Has (printf "%s/%s" $document.apiVersion $document.kind)) }}
{{- $_ := set $document.metadata "labels" (fromYaml (include "lethe.labels" $.root)) }}
{{- $_ := set $document.metadata "annotations" (merge (dict "helm.sh/resource-policy" "keep") ($document.metadata.annotations | default dict)) }}
---
{{ toYaml $document }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The volume source of authorities of one's own; empty: there are none. */}}
{{- define "lethe.extraCA" -}}
{{- with .Values.extraCA.configMapRef }}
configMap:
  name: {{ .name }}
  items:
  - {key: {{ .key | quote }}, path: ca.crt}
{{- end }}
{{- with .Values.extraCA.secretRef }}
secret:
  secretName: {{ .name }}
  items:
  - {key: {{ .key | quote }}, path: ca.crt}
{{- end }}
{{- end -}}

{{/* Whether lookup sees a cluster; without one it finds nothing, whatever there is. */}}
{{- define "lethe.seesCluster" -}}
{{- if hasKey (lookup "v1" "Secret" .Release.Namespace "") "items" }}true{{ end }}
{{- end -}}

{{/*
A line for each Secret, or key of one, that the values name and that is not in the cluster. It fails nothing: what
brings Secrets later, as GitOps does, finds the pod waiting for them.
*/}}
{{- define "lethe.missingSecrets" -}}
{{- if include "lethe.seesCluster" . }}
{{- $known := dict }}
{{- range (lookup "v1" "Secret" .Release.Namespace "").items }}{{ $_ := set $known .metadata.name (.data | default dict) }}{{ end }}
{{- $wanted := list }}
{{- range $key := list "fingerprint" "seal" "sign" }}
{{- $wanted = append $wanted (list "keys.existingSecret" $.Values.keys.existingSecret $key) }}
{{- end }}
{{- $references := dict "ledger.urlSecretRef" .Values.ledger.urlSecretRef "extraCA.secretRef" .Values.extraCA.secretRef }}
{{- $_ := set $references "notices.smtp.urlSecretRef" .Values.notices.smtp.urlSecretRef }}
{{- $_ := set $references "notices.smtp.caSecretRef" .Values.notices.smtp.caSecretRef }}
{{- $_ := set $references "notices.webhook.secretRef" .Values.notices.webhook.secretRef }}
{{- $_ := set $references "notices.webhook.caSecretRef" .Values.notices.webhook.caSecretRef }}
{{- range $field, $reference := $references }}
{{- with $reference }}{{ $wanted = append $wanted (list $field .name .key) }}{{ end }}
{{- end }}
{{- $said := list }}
{{- range $wanted }}
{{- $field := index . 0 }}{{ $name := index . 1 }}{{ $key := index . 2 }}
{{- if not $name }}
{{- else if not (hasKey $known $name) }}
{{- $said = append $said (printf "Secret %s/%s is missing, which %s names: create it; the pod does not start before." $.Release.Namespace $name $field) }}
{{- else if not (hasKey (get $known $name) $key) }}
{{- $said = append $said (printf "Secret %s/%s has no key %s, which %s needs: add it; the pod does not start before." $.Release.Namespace $name $key $field) }}
{{- end }}
{{- end }}
{{- join "\n" (uniq $said) }}
{{- end }}
{{- end -}}

{{/* What is watched for others' restores, as LETHE_EARLY_WARNING takes it; empty: nothing. */}}
{{- define "lethe.earlyWarning" -}}
{{- $found := list }}
{{- with .Values.earlyWarning }}
{{- if .velero }}{{ $found = append $found (printf "velero=%s" .veleroNamespace) }}{{ end }}
{{- if .cloudNativePG }}{{ $found = append $found "cloudNativePG" }}{{ end }}
{{- if .volumeSnapshots }}{{ $found = append $found "volumeSnapshots" }}{{ end }}
{{- if .jobs }}{{ $found = append $found "jobs" }}{{ end }}
{{- end }}
{{- join "," $found }}
{{- end -}}

{{/* What the operator calls, and nothing else: operator/lethe/adapters/cluster/api.py and Kopf's watches. */}}
{{- define "lethe.rules" -}}
- apiGroups: [lethe.dev]
  resources: [backupsnapshots, backupsources, datastores, deletionrequests, legalrequests, restoredrills, restoreevents]
  verbs: [list, watch]
# Objects that it had stopped watching, or that somebody else had made under the name that it wanted to give.
- apiGroups: [lethe.dev]
  resources: [backupsnapshots, deletionrequests]
  verbs: [get]
- apiGroups: [lethe.dev]
  resources:
  - backupsnapshots/status
  - backupsources/status
  - datastores/status
  - deletionrequests/status
  - legalrequests/status
  - restoredrills/status
  - restoreevents/status
  verbs: [patch]
# A restore that nobody declared is declared by Lethe, and so is each snapshot that it finds.
- apiGroups: [lethe.dev]
  resources: [backupsnapshots, restoreevents]
  verbs: [create]
# Its own object, where somebody has applied one for the same snapshot, or the snapshot is long gone.
- apiGroups: [lethe.dev]
  resources: [backupsnapshots]
  verbs: [delete]
# Credentials of stores are read; an identifier's Secret is deleted once the ledger has it; an authority's answer
# is drafted in one.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, delete]
{{- if .Values.drills.enabled }}
# The Job that restores a snapshot in a drill.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, create, delete]
{{- end }}
# The readiness gate lethe.dev/safe-to-serve.
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- if include "lethe.earlyWarning" . }}
# Others' objects are read, and a restore that one announces is said in a RestoreEvent.
- apiGroups: [lethe.dev]
  resources: [restoreevents]
  verbs: [warn]
{{- end }}
{{- if .Values.earlyWarning.cloudNativePG }}
- apiGroups: [postgresql.cnpg.io]
  resources: [clusters]
  verbs: [list, watch]
- apiGroups: [postgresql.cnpg.io]
  resources: [backups]
  verbs: [get]
{{- end }}
{{- if .Values.earlyWarning.volumeSnapshots }}
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [list, watch]
- apiGroups: [snapshot.storage.k8s.io]
  resources: [volumesnapshots]
  verbs: [get]
{{- end }}
{{- if .Values.earlyWarning.jobs }}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
{{- end }}
{{- if .Values.gate.networkPolicies }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, update, delete]
{{- end }}
{{- if .Values.gate.cnpgPoolers }}
- apiGroups: [postgresql.cnpg.io]
  resources: [poolers]
  verbs: [get, patch]
{{- end }}
{{- end -}}
