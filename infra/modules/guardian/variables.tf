# What it guards.

variable "clusters" {
  description = "Names of the ECS clusters whose services it guards."
  type        = list(string)

  validation {
    condition     = length(var.clusters) > 0 && alltrue([for name in var.clusters : can(regex("^[A-Za-z0-9_-]{1,255}$", name))])
    error_message = "Give one cluster at least, by its name: letters, digits, hyphens and underscores. An ARN is not a name, and a pattern would widen the policy to clusters that nobody thought of."
  }

  validation {
    condition     = length(distinct(var.clusters)) == length(var.clusters)
    error_message = "A cluster is named twice."
  }
}

variable "services" {
  description = "Which services of the clusters it may touch: names, or prefixes that end with *. The rule files say which of them it protects, and how."
  type        = list(string)
  default     = ["*"]

  validation {
    condition     = length(var.services) > 0 && alltrue([for name in var.services : can(regex("^[A-Za-z0-9_-]*[A-Za-z0-9_*-]$", name))])
    error_message = "Each is a service's name, or a prefix with one * at its end, as in [\"checkout\", \"web-*\"]."
  }
}

variable "shards" {
  description = "Splits a large account: a queue, a journal and replicas for each shard, by its name. Its value is like services, and takes its place. A service that no shard names is not guarded."
  type        = map(list(string))
  default     = {}

  validation {
    condition     = alltrue([for shard in keys(var.shards) : can(regex("^[a-z0-9-]{1,20}$", shard))])
    error_message = "A shard's name has 1 to 20 small letters, digits and hyphens: it becomes part of other names."
  }

  validation {
    condition     = alltrue([for shard in keys(var.shards) : shard != "start" && !endswith(shard, "dead-letters")])
    error_message = "The module has a role called NAME-start, and queues called NAME-SHARD-dead-letters: give the shard another name."
  }

  validation {
    condition     = alltrue([for names in values(var.shards) : length(names) > 0 && alltrue([for name in names : can(regex("^[A-Za-z0-9_-]*[A-Za-z0-9_*-]$", name))])])
    error_message = "A shard has a list of services: names, or prefixes with one * at their end."
  }

  validation {
    # Two workers on one service would take each other for a stranger who sets rules back.
    condition = alltrue(flatten([
      for number, names in values(var.shards) : [
        for others in slice(values(var.shards), number + 1, length(var.shards)) : [
          for pair in setproduct(names, others) : !(
            pair[0] == pair[1] ||
            (endswith(pair[0], "*") && startswith(pair[1], trimsuffix(pair[0], "*"))) ||
            (endswith(pair[1], "*") && startswith(pair[0], trimsuffix(pair[1], "*")))
          )
        ]
      ]
    ]))
    error_message = "Two shards would guard the same service: their names and prefixes must not overlap."
  }

  validation {
    condition     = length(var.shards) == 0 || (length(var.services) == 1 && var.services[0] == "*")
    error_message = "Give services or shards, not both: the shards say which services are guarded."
  }
}

variable "load_balancers" {
  description = "ARNs of the load balancers in front of the services: on these it may change listener rules and default actions. It reads all others."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.load_balancers : can(regex("^arn:[a-z-]+:elasticloadbalancing:[a-z0-9-]+:[0-9]{12}:loadbalancer/(app|net)/[^/]+/[^/]+$", arn))])
    error_message = "Each is the ARN of an Application or Network Load Balancer, as in arn:aws:elasticloadbalancing:eu-west-1:111122223333:loadbalancer/app/web/50dc6c495c0c9188."
  }
}

variable "user_pools" {
  description = "IDs of the Cognito user pools by which listener rules log in, as in eu-west-1_Ab1Cd2Ef3. Elastic Load Balancing reads their clients, secrets included, in the name of whoever changes such a rule. With [] it may read none, and a rule that logs in by Cognito can't be shifted."
  type        = list(string)
  default     = ["*"]

  validation {
    condition     = alltrue([for id in var.user_pools : id == "*" || can(regex("^[a-z0-9-]+_[A-Za-z0-9]+$", id))])
    error_message = "Each is the ID of a user pool, as in eu-west-1_Ab1Cd2Ef3, or \"*\" for all of the account."
  }
}

variable "rules" {
  description = "Rule files by name, as in { \"web.toml\" = file(\"rules/web.toml\") }. They are handed over in the task definition: a change restarts the replicas, one after the other. Run taskset-guardian check on them before."
  type        = map(string)

  validation {
    condition     = length(var.rules) > 0 && alltrue([for name in keys(var.rules) : can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]*\\.toml$", name))])
    error_message = "Give one rule file at least, and names that end with .toml."
  }

  validation {
    # A task definition has room for 64 KiB, all else included.
    condition     = length(jsonencode(jsonencode(var.rules))) <= 48000
    error_message = "The rule files are too large for a task definition: 48,000 bytes in all, as JSON. Take out comments, or merge rules."
  }
}

variable "observe_only" {
  description = "Decide, report and announce, but change nothing. The role denies every change explicitly, whatever else is attached to it."
  type        = bool
  default     = false
}

variable "alarm_names" {
  description = "CloudWatch alarms whose events it hears: names, or prefixes that end with *. In an account with many alarms this saves messages."
  type        = list(string)
  default     = ["*"]

  validation {
    condition     = length(var.alarm_names) > 0 && alltrue([for name in var.alarm_names : can(regex("^[^*]{0,254}[*]?$", name)) && name != ""])
    error_message = "Each is an alarm's name, or a prefix with one * at its end."
  }
}

variable "cloudtrail" {
  description = "It hears from CloudTrail who changes task sets and rules, so that whoever undoes a rollback has a name. Needs a trail that logs management events; nothing else depends on it."
  type        = bool
  default     = false
}

# How it runs.

variable "name" {
  description = "Name of everything that the module creates, or its beginning."
  type        = string
  default     = "taskset-guardian"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "A name has 3 to 32 small letters, digits and hyphens, and begins with a letter."
  }
}

variable "image" {
  description = "The container image, best by its digest, as in 111122223333.dkr.ecr.eu-west-1.amazonaws.com/taskset-guardian@sha256:0123...."
  type        = string

  validation {
    condition     = can(regex("[:@]", var.image)) && !endswith(var.image, ":latest")
    error_message = "Name a version, by tag or digest, and not latest: a guardian that changes by itself is one that nobody has tried."
  }
}

variable "cpu_architecture" {
  description = "What the image was built for: X86_64 or ARM64."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.cpu_architecture)
    error_message = "Fargate has X86_64 and ARM64."
  }
}

variable "cpu" {
  description = "CPU units of a replica; 1024 are one vCPU."
  type        = number
  default     = 256

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.cpu)
    error_message = "Fargate has 256, 512, 1024, 2048 and 4096."
  }
}

variable "memory" {
  description = "Memory of a replica in MiB."
  type        = number
  default     = 512

  validation {
    condition     = var.memory >= var.cpu * 2 && var.memory <= var.cpu * 8
    error_message = "Fargate gives two to eight MiB for each CPU unit."
  }
}

variable "replicas" {
  description = "Workers of a shard: 2, of which one acts and one stands by, or 1. Two need the table."
  type        = number
  default     = 2

  validation {
    condition     = contains([1, 2], var.replicas)
    error_message = "One or two: a third would only stand by as well."
  }

  validation {
    condition     = var.replicas == 1 || var.table
    error_message = "Two replicas share a journal: they need the table."
  }
}

variable "table" {
  description = "Keep the journal in a DynamoDB table. Without it the journal lives as long as its task: after a restart, open rollbacks are decided anew, and the quarantine and the count of the day's rollbacks are empty."
  type        = bool
  default     = true
}

variable "vpc_id" {
  description = "The VPC in which it runs."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets for the replicas, with a way to the AWS APIs (NAT, or endpoints of sqs, ecs, elasticloadbalancing, monitoring, events, tagging, dynamodb, logs and where the image is). Of two availability zones, when there are two replicas."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "Give one subnet at least."
  }
}

variable "assign_public_ip" {
  description = "In a public subnet without NAT a replica reaches AWS by an address of its own. Nothing is let in from outside either way."
  type        = bool
  default     = false
}

variable "scraper_security_group_ids" {
  description = "Security groups that may read /metrics, /status and the page on port 9464."
  type        = list(string)
  default     = []
}

variable "sweep" {
  description = "How often every protected service is read, whatever the events say: 1s to 5m."
  type        = string
  default     = "30s"

  validation {
    condition     = can(regex("^([1-9]|[1-9][0-9]|[12][0-9][0-9]|300)s$|^[1-5]m$", var.sweep))
    error_message = "Write seconds or minutes, as in \"30s\" or \"2m\": from 1s to 5m."
  }
}

variable "elb_reads" {
  description = "Reads of Elastic Load Balancing a second, at most, which the shards share. AWS allows an account 10 unless it has raised that, for all that runs in it. A shard needs 4."
  type        = number
  default     = 8

  validation {
    condition     = var.elb_reads >= 4 * max(1, length(var.shards)) && var.elb_reads <= 1000
    error_message = "Each shard needs 4 reads a second, or its reads do not end in time. Ask AWS for more than 10, or take fewer shards: they add no reads."
  }
}

variable "fleet_brake" {
  description = "Begin no rollback while more services than this breach within ten minutes: then the cause is shared."
  type        = number
  default     = 3

  validation {
    condition     = var.fleet_brake >= 1 && var.fleet_brake <= 65535 && floor(var.fleet_brake) == var.fleet_brake
    error_message = "A whole number, and 1 at least."
  }
}

variable "environment" {
  description = "More environment variables for the worker, as in { RUST_LOG = \"debug\" }."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.environment) : !startswith(name, "TASKSET_GUARDIAN_")])
    error_message = "TASKSET_GUARDIAN_* is set by the module."
  }
}

# Whom it tells.

variable "event_bus_name" {
  description = "EventBridge bus for its own events."
  type        = string
  default     = "default"

  validation {
    condition     = can(regex("^[A-Za-z0-9/_.-]{1,256}$", var.event_bus_name))
    error_message = "The name of a bus of this account and Region."
  }
}

variable "notify" {
  description = "Which of its own events go to the topic. The default leaves out \"Deployment Graduated\"."
  type        = list(string)
  default     = ["Rollback Started", "Rollback Completed", "Rollback Escalated", "Rollback Held"]

  validation {
    condition     = length(var.notify) > 0 && alltrue([for name in var.notify : contains(["Rollback Started", "Rollback Completed", "Rollback Escalated", "Rollback Held", "Deployment Graduated"], name)])
    error_message = "There are \"Rollback Started\", \"Rollback Completed\", \"Rollback Escalated\", \"Rollback Held\" and \"Deployment Graduated\"."
  }
}

variable "subscriptions" {
  description = "Who reads the topic, by a name of your choice, as in { on-call = { protocol = \"email\", endpoint = \"on-call@example.com\" } }."
  type        = map(object({ protocol = string, endpoint = string }))
  default     = {}

  validation {
    condition     = alltrue([for one in values(var.subscriptions) : contains(["email", "email-json", "https", "lambda", "sms", "sqs"], one.protocol)])
    error_message = "The protocol is email, email-json, https, lambda, sms or sqs."
  }
}

variable "alarm_actions" {
  description = "ARNs that the alarms on the guardian itself act on, beside the topic."
  type        = list(string)
  default     = []
}

variable "lag_alarm" {
  description = "The oldest event has waited longer than this, in seconds: alarm."
  type        = number
  default     = 120

  validation {
    condition     = var.lag_alarm >= 60
    error_message = "Below 60 seconds a busy minute would wake somebody."
  }
}

# How things are kept.

variable "queue_retention" {
  description = "How long an event waits for a worker, in seconds. An outage of a weekend must lose nothing: 4 days at least. Dead letters are kept for 14 days."
  type        = number
  default     = 345600

  validation {
    condition     = var.queue_retention >= 345600 && var.queue_retention < 1209600
    error_message = "From 345600 (4 days) to less than 1209600 (14 days): what becomes a dead letter late must still be kept for a while."
  }
}

variable "log_retention" {
  description = "How long logs are kept, in days. The journal keeps incidents; the logs say what happened around them."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention)
    error_message = "One of CloudWatch's numbers of days, and 30 at least."
  }
}

variable "deletion_protection" {
  description = "The tables can't be deleted while this is true."
  type        = bool
  default     = false
}

variable "kms_key_arn" {
  description = "A key of your own for queues, tables, topic and logs. Its policy must let EventBridge, CloudWatch's alarms and its logs use it; the module's README has the statements. Without it, AWS's own keys are used, and the topic is not encrypted."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "The ARN of a key, not of an alias."
  }
}

variable "tags" {
  description = "Tags for everything that the module creates."
  type        = map(string)
  default     = {}
}
