"""Wrong values, and what Helm complains of: one at least for each value that the schema checks."""

SMTP = "notices.smtp.urlSecretRef.name=smtp,notices.smtp.urlSecretRef.key=url"
WEBHOOK = "notices.webhook.secretRef.name=webhook,notices.webhook.secretRef.key=secret"
DOT = "\\."
DIRECTORY = "backups.directories[0]"
NAMED = f"{DIRECTORY}.name=a"
MOUNTED = f"{NAMED},{DIRECTORY}.mountPath=/backups/a"
AT = "at '/backups/directories/0"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
WRONG = [
    ("settings.retension=P6M", "at '/settings': additional properties 'retension' not allowed"),
    ("setings.retention=P6M", "at '': additional properties 'setings' not allowed"),
    ("settings.retention=6 months", "at '/settings/retention': '6 months' does not match pattern"),
    ("settings.retention=P", "at '/settings/retention': 'P' does not match pattern"),
    ("settings.erasureDeadline=30d", "at '/settings/erasureDeadline': '30d' does not match pattern"),
    ("settings.journalInterval=10 s", "at '/settings/journalInterval': '10 s' does not match pattern"),
    ("settings.sweepInterval=PT1H", "at '/settings/sweepInterval': 'PT1H' does not match pattern"),
    ("settings.logLevel=debug", "at '/settings/logLevel': value must be one of 'DEBUG', 'INFO'"),
    (
        "ledger.urlSecretRef.name=lethe-ledger",
        "at '/ledger/urlSecretRef': properties 'key' required, if 'name' exists",
    ),
    ("ledger.url=postgresql://ledger.example/lethe", "at '/ledger': additional properties 'url' not allowed"),
    (
        "notices.smtp.from=privacy@example.com",
        "at '/notices/smtp/urlSecretRef': missing properties 'name', 'key'",
    ),
    (
        SMTP,
        "at '/notices/smtp/from': minLength: got 0, want 1",
    ),
    (
        f"{SMTP},notices.smtp.from=Example Privacy",
        "at '/notices/smtp/from': 'Example Privacy' does not match pattern",
    ),
    (
        f"{SMTP},notices.smtp.from=a@example.com,notices.smtp.caSecretRef.name=ca",
        "at '/notices/smtp/caSecretRef': properties 'key' required, if 'name' exists",
    ),
    (
        "notices.smtp.url=smtps://mail.example.com",
        "at '/notices/smtp': additional properties 'url' not allowed",
    ),
    (
        "notices.webhook.url=https://mail.example.com/lethe",
        "at '/notices/webhook/secretRef': missing properties 'name', 'key'",
    ),
    (
        WEBHOOK,
        "at '/notices/webhook/url': minLength: got 0, want 1",
    ),
    (
        f"{WEBHOOK},notices.webhook.url=http://mail.example.com",
        "at '/notices/webhook/url': 'http://mail.example.com' does not match pattern",
    ),
    ("earlyWarning.jobs=shop", "at '/earlyWarning/jobs': got string, want boolean"),
    ("earlyWarning.velero=velero", "at '/earlyWarning/velero': got string, want boolean"),
    ("earlyWarning.veleroNamespace=Velero", "at '/earlyWarning/veleroNamespace': 'Velero' does not match"),
    ("earlyWarning.cloudNativePG=1", "at '/earlyWarning/cloudNativePG': got number, want boolean"),
    ("earlyWarning.volumeSnapshots=1", "at '/earlyWarning/volumeSnapshots': got number, want boolean"),
    ("drills.enabled=maybe", "at '/drills/enabled': got string, want boolean"),
    *(
        (f"drills.commands.{kind}=tools", f"at '/drills/commands/{kind}': got string, want object")
        for kind in ("configMap", "persistentVolumeClaim", "csi", "image")
    ),
    (
        "drills.commands.hostPath.path=/",
        "at '/drills/commands': additional properties 'hostPath' not allowed",
    ),
    ("notices.perHour=0", "at '/notices/perHour': minimum: got 0, want 1"),
    ("notices.perhour=30", "at '/notices': additional properties 'perhour' not allowed"),
    ("namespaces={Shop}", "at '/namespaces/0': 'Shop' does not match pattern"),
    (
        "extraCA.configMapRef.name=a,extraCA.configMapRef.key=b,extraCA.secretRef.name=a,extraCA.secretRef.key=b",
        "at '/extraCA/secretRef': maxProperties: got 2, want 0",
    ),
    (
        "extraCA.configMapRef.name=company-ca",
        "at '/extraCA/configMapRef': properties 'key' required, if 'name' exists",
    ),
    ("networkPolicy.enable=true", "at '/networkPolicy': additional properties 'enable' not allowed"),
    ("networkPolicy.egress[0].from[0]=x", "at '/networkPolicy/egress/0': additional properties 'from' not"),
    (
        "networkPolicy.metricsFrom[0].pods=x",
        "at '/networkPolicy/metricsFrom/0': additional properties 'pods'",
    ),
    ("terminationGracePeriodSeconds=0", "at '/terminationGracePeriodSeconds': minimum: got 0, want 1"),
    ("extraEnv.PYTHONPATH=/tmp", "at '': additional properties 'extraEnv' not allowed"),
    ("replicas=2", "at '/ledger/urlSecretRef': missing properties 'name', 'key'"),
    ("replicas=0", "at '/replicas': minimum: got 0, want 1"),
    ("replicaCount=2", "at '': additional properties 'replicaCount' not allowed"),
    ("image.digest=latest", "at '/image/digest': 'latest' does not match pattern"),
    ("crds.enabled=maybe", "at '/crds/enabled': got string, want boolean"),
    # Names
    ("global=x", "at '/global': got string, want object"),
    ("nameOverride=a.b", "at '/nameOverride': 'a.b' does not match pattern"),
    ("fullnameOverride=1lethe", "at '/fullnameOverride': '1lethe' does not match pattern"),
    ("commonLabels.team=1", "at '/commonLabels/team': got number, want string"),
    (
        "commonLabels.helm\\.sh/chart=x",
        "at '/commonLabels/helm.sh~1chart': got string, want null",
    ),
    # Image
    ("image.repository=", "at '/image/repository': '' does not match pattern"),
    ("image.repository=Lethe", "at '/image/repository': 'Lethe' does not match pattern"),
    ("image.tag=a b", "at '/image/tag': 'a b' does not match pattern"),
    ("image.pullPolicy=always", "at '/image/pullPolicy': value must be one of 'Always'"),
    ("imagePullSecrets[0].name=Pull", "at '/imagePullSecrets/0/name': 'Pull' does not match pattern"),
    # Settings
    ("settings.clockSkew=5", "at '/settings/clockSkew': got number, want string"),
    ("settings.storeHosts={db example}", "at '/settings/storeHosts/0': 'db example' does not match pattern"),
    ("settings.scanInterval=5", "at '/settings/scanInterval': got number, want string"),
    ("settings.logFormat=xml", "at '/settings/logFormat': value must be one of 'json', 'text'"),
    # Backups
    (
        f"{DIRECTORY}.mountPath=/b,{DIRECTORY}.volume.csi.driver=x,{DIRECTORY}.name=A",
        f"{AT}/name': 'A' does not match",
    ),
    (
        f"{NAMED},{DIRECTORY}.volume.csi.driver=x,{DIRECTORY}.mountPath=/",
        f"{AT}/mountPath': '/' does not match",
    ),
    (
        f"{NAMED},{DIRECTORY}.volume.csi.driver=x,{DIRECTORY}.mountPath=b",
        f"{AT}/mountPath': 'b' does not match",
    ),
    (
        f"{NAMED},{DIRECTORY}.volume.csi.driver=x,{DIRECTORY}.mountPath=/b/../etc",
        f"{AT}/mountPath': '/b/../etc' does not match",
    ),
    (
        f"{NAMED},{DIRECTORY}.volume.csi.driver=x,{DIRECTORY}.mountPath=//etc",
        f"{AT}/mountPath': '//etc' does not match",
    ),
    (f"{MOUNTED},{DIRECTORY}.volume.csi=x", f"{AT}/volume/csi': got string, want object"),
    (f"{MOUNTED},{DIRECTORY}.volume.ephemeral=x", f"{AT}/volume/ephemeral': got string, want object"),
    (
        f"{MOUNTED},{DIRECTORY}.volume.persistentVolumeClaim=x",
        f"{AT}/volume/persistentVolumeClaim': got string, want object",
    ),
    (
        f"{MOUNTED},{DIRECTORY}.volume.hostPath.path=/",
        f"{AT}/volume': additional properties 'hostPath' not allowed",
    ),
    # Notices
    (
        f"{SMTP},notices.smtp.from=a@example.com,notices.smtp.urlSecretRef.name=S",
        "at '/notices/smtp/urlSecretRef/name': 'S' does not match pattern",
    ),
    (
        f"{SMTP},notices.smtp.from=a@example.com,notices.smtp.urlSecretRef.key=a b",
        "at '/notices/smtp/urlSecretRef/key': 'a b' does not match pattern",
    ),
    (
        "notices.smtp.caSecretRef.name=A,notices.smtp.caSecretRef.key=b",
        "at '/notices/smtp/caSecretRef/name': 'A' does not match pattern",
    ),
    (
        "notices.smtp.caSecretRef.name=a,notices.smtp.caSecretRef.key=b/c",
        "at '/notices/smtp/caSecretRef/key': 'b/c' does not match pattern",
    ),
    (
        f"{WEBHOOK},notices.webhook.url=https://example.com,notices.webhook.secretRef.name=W",
        "at '/notices/webhook/secretRef/name': 'W' does not match pattern",
    ),
    (
        f"{WEBHOOK},notices.webhook.url=https://example.com,notices.webhook.secretRef.key=a b",
        "at '/notices/webhook/secretRef/key': 'a b' does not match pattern",
    ),
    (
        "notices.webhook.caSecretRef.name=A,notices.webhook.caSecretRef.key=b",
        "at '/notices/webhook/caSecretRef/name': 'A' does not match pattern",
    ),
    (
        "notices.webhook.caSecretRef.name=a,notices.webhook.caSecretRef.key=b/c",
        "at '/notices/webhook/caSecretRef/key': 'b/c' does not match pattern",
    ),
    (
        "notices.templatesConfigMap=my letters",
        "at '/notices/templatesConfigMap': 'my letters' does not match",
    ),
    # Ledger and keys
    (
        "ledger.urlSecretRef.name=L,ledger.urlSecretRef.key=url",
        "at '/ledger/urlSecretRef/name': 'L' does not match pattern",
    ),
    (
        "ledger.urlSecretRef.name=l,ledger.urlSecretRef.key=a b",
        "at '/ledger/urlSecretRef/key': 'a b' does not match pattern",
    ),
    ("ledger.volume.existingClaim=My", "at '/ledger/volume/existingClaim': 'My' does not match pattern"),
    ("ledger.volume.size=1", "at '/ledger/volume/size': got number, want string"),
    ("ledger.volume.size=1GB", "at '/ledger/volume/size': '1GB' does not match pattern"),
    ("ledger.volume.storageClassName=Fast", "at '/ledger/volume/storageClassName': 'Fast' does not match"),
    (
        "ledger.volume.accessMode=ReadWriteMany",
        "at '/ledger/volume/accessMode': value must be one of 'ReadWriteOnce'",
    ),
    ("ledger.volume.annotations.a=1", "at '/ledger/volume/annotations/a': got number, want string"),
    (
        "ledger.volume.annotations.helm\\.sh/resource-policy=delete",
        "at '/ledger/volume/annotations/helm.sh~1resource-policy': got string, want null",
    ),
    ("keys.existingSecret=My", "at '/keys/existingSecret': 'My' does not match pattern"),
    # Rights
    ("policies.enabled=no", "at '/policies/enabled': got string, want boolean"),
    ("gate.networkPolicies=yes", "at '/gate/networkPolicies': got string, want boolean"),
    ("gate.cnpgPoolers=yes", "at '/gate/cnpgPoolers': got string, want boolean"),
    ("gate.poolers=true", "at '/gate': additional properties 'poolers' not allowed"),
    ("podStatusPolicy.enabled=no", "at '/podStatusPolicy/enabled': got string, want boolean"),
    ("rbac.create=no", "at '/rbac/create': got string, want boolean"),
    (
        "serviceAccount.create=no,serviceAccount.name=a",
        "at '/serviceAccount/create': got string, want boolean",
    ),
    ("serviceAccount.create=false", "at '/serviceAccount/name': minLength: got 0, want 1"),
    ("serviceAccount.create=null", "at '/serviceAccount/name': minLength: got 0, want 1"),
    ("serviceAccount.name=Lethe", "at '/serviceAccount/name': 'Lethe' does not match pattern"),
    ("serviceAccount.annotations.a=1", "at '/serviceAccount/annotations/a': got number, want string"),
    # Network
    *(
        case
        for kind in ("configMapRef", "secretRef")
        for case in (
            (f"extraCA.{kind}.name=A,extraCA.{kind}.key=b", f"at '/extraCA/{kind}/name': 'A' does not match"),
            (
                f"extraCA.{kind}.name=a,extraCA.{kind}.key=b/c",
                f"at '/extraCA/{kind}/key': 'b/c' does not match",
            ),
        )
    ),
    ("networkPolicy.enabled=no", "at '/networkPolicy/enabled': got string, want boolean"),
    *(
        (
            f"networkPolicy.metricsFrom[0].{peer}=x",
            f"at '/networkPolicy/metricsFrom/0/{peer}': got string, want object",
        )
        for peer in ("podSelector", "namespaceSelector", "ipBlock")
    ),
    ("networkPolicy.egress[0].to=x", "at '/networkPolicy/egress/0/to': got string, want array"),
    ("networkPolicy.egress[0].ports=443", "at '/networkPolicy/egress/0/ports': got number, want array"),
    ("service.port=70000", "at '/service/port': maximum: got 70,000, want 65,535"),
    ("service.annotations.a=true", "at '/service/annotations/a': got boolean, want string"),
    # Monitoring
    ("serviceMonitor.enabled=no", "at '/serviceMonitor/enabled': got string, want boolean"),
    ("serviceMonitor.enable=true", "at '/serviceMonitor': additional properties 'enable' not allowed"),
    ("serviceMonitor.interval=30", "at '/serviceMonitor/interval': got number, want string"),
    ("serviceMonitor.interval=0s", "at '/serviceMonitor/interval': '0s' does not match pattern"),
    (
        "serviceMonitor.scrapeTimeout=10 s",
        "at '/serviceMonitor/scrapeTimeout': '10 s' does not match pattern",
    ),
    ("serviceMonitor.labels.release=1", "at '/serviceMonitor/labels/release': got number, want string"),
    *(
        (f"serviceMonitor.relabelings[0].{setting}", f"at '/serviceMonitor/relabelings/0{complaint}")
        for setting, complaint in (
            ("sourceLabel=x", "': additional properties 'sourceLabel' not allowed"),
            ("sourceLabels[0]=1", "/sourceLabels/0': got number, want string"),
            ("separator=1", "/separator': got number, want string"),
            ("targetLabel=1", "/targetLabel': got number, want string"),
            ("regex=1", "/regex': got number, want string"),
            ("modulus=0", "/modulus': minimum: got 0, want 1"),
            ("replacement=1", "/replacement': got number, want string"),
            ("action=Replace", "/action': value must be one of 'replace', 'keep'"),
        )
    ),
    ("prometheusRule.enabled=no", "at '/prometheusRule/enabled': got string, want boolean"),
    ("prometheusRule.labels.release=1", "at '/prometheusRule/labels/release': got number, want string"),
    ("prometheusRule.ruleLabels.team=1", "at '/prometheusRule/ruleLabels/team': got number, want string"),
    (
        "prometheusRule.ruleLabels.a-b=x",
        "at '/prometheusRule/ruleLabels': additional properties 'a-b' not allowed",
    ),
    (
        "prometheusRule.ruleLabels.severity=x",
        "at '/prometheusRule/ruleLabels/severity': got string, want null",
    ),
    (
        "prometheusRule.runbookUrlPrefix=our wiki",
        "at '/prometheusRule/runbookUrlPrefix': 'our wiki' does not match pattern",
    ),
    ("dashboard.enabled=maybe", "at '/dashboard/enabled': got string, want boolean"),
    ("dashboard.labels.a=1", "at '/dashboard/labels/a': got number, want string"),
    ("dashboard.annotations.a=1", "at '/dashboard/annotations/a': got number, want string"),
    # Pod
    ("resources.request.cpu=1", "at '/resources': additional properties 'request' not allowed"),
    ("resources.requests.cpu=1 core", "at '/resources/requests/cpu': '1 core' does not match pattern"),
    ("resources.limits.memory=1GB", "at '/resources/limits/memory': '1GB' does not match pattern"),
    ("resources.limits.mem=1Gi", "at '/resources/limits': additional properties 'mem' not allowed"),
    ("deploymentAnnotations.a=1", "at '/deploymentAnnotations/a': got number, want string"),
    ("podLabels.a=1", "at '/podLabels/a': got number, want string"),
    *(
        (
            f"podLabels.{label.replace('.', DOT)}=x",
            f"at '/podLabels/{label.replace('/', '~1')}': got string, want null",
        )
        for label in (
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/version",
            "app.kubernetes.io/managed-by",
            "helm.sh/chart",
        )
    ),
    ("podAnnotations.a=1", "at '/podAnnotations/a': got number, want string"),
    ("podSecurityContext.runAsUser=0", "at '/podSecurityContext/runAsUser': minimum: got 0, want 1"),
    ("podSecurityContext.runAsGroup=lethe", "at '/podSecurityContext/runAsGroup': got string, want integer"),
    ("podSecurityContext.fsGroup=-1", "at '/podSecurityContext/fsGroup': minimum: got -1, want 0"),
    (
        "podSecurityContext.supplementalGroups[0]=nfs",
        "at '/podSecurityContext/supplementalGroups/0': got string, want integer",
    ),
    (
        "podSecurityContext.runAsNonRoot=false",
        "at '/podSecurityContext': additional properties 'runAsNonRoot' not allowed",
    ),
    ("priorityClassName=High", "at '/priorityClassName': 'High' does not match pattern"),
    ("nodeSelector.zone=1", "at '/nodeSelector/zone': got number, want string"),
    *(
        (f"tolerations[0].{setting}", f"at '/tolerations/0{complaint}")
        for setting, complaint in (
            ("operater=Exists", "': additional properties 'operater' not allowed"),
            ("key=1", "/key': got number, want string"),
            ("operator=Exist", "/operator': value must be one of 'Exists', 'Equal'"),
            ("value=1", "/value': got number, want string"),
            ("effect=NoSchedul", "/effect': value must be one of 'NoSchedule'"),
            ("tolerationSeconds=30s", "/tolerationSeconds': got string, want integer"),
        )
    ),
    ("affinity.nodeAffinty.x=y", "at '/affinity': additional properties 'nodeAffinty' not allowed"),
    (
        f"affinity.nodeAffinity.{REQUIRED}=x",
        f"at '/affinity/nodeAffinity/{REQUIRED}': got string, want object",
    ),
    (
        f"affinity.podAffinity.{REQUIRED}[0]=x",
        f"at '/affinity/podAffinity/{REQUIRED}/0': got string, want object",
    ),
    (
        f"affinity.podAntiAffinity.{REQUIRED}[0]=x",
        f"at '/affinity/podAntiAffinity/{REQUIRED}/0': got string, want object",
    ),
    *(
        case
        for kind in ("nodeAffinity", "podAffinity", "podAntiAffinity")
        for case in (
            (
                f"affinity.{kind}.required=x",
                f"at '/affinity/{kind}': additional properties 'required' not allowed",
            ),
            (
                f"affinity.{kind}.{PREFERRED}[0]=x",
                f"at '/affinity/{kind}/{PREFERRED}/0': got string, want object",
            ),
        )
    ),
]
