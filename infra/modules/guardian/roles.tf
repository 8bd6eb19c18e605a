# What the worker may do: worker-policy.json, filled in. What people need who use the command line: people-policy.json and
# the worker's reads. Both files are tested against the code: every call that it makes is allowed, and nothing else is.

locals {
  # As in app/web/50dc6c495c0c9188.
  load_balancers = [for arn in var.load_balancers : split(":loadbalancer/", arn)[1]]

  # Elastic Load Balancing reads the client of a user pool in the name of whoever changes a rule that logs in by Cognito:
  # without rules to change it is not needed.
  user_pools = length(var.load_balancers) > 0 ? var.user_pools : []

  policies = {
    for policy in ["worker", "people"] : policy => {
      for cell, each in local.cells : cell => [
        for statement in jsondecode(local.filled[policy][cell]).Statement : merge(statement, {
          Resource = flatten([
            for resource in statement.Resource : [
              for cluster in strcontains(resource, "{CLUSTER}") ? var.clusters : [""] : [
                for service in strcontains(resource, "{SERVICE}") ? each.services : [""] : [
                  for balancer in strcontains(resource, "{LOAD_BALANCER}") ? local.load_balancers : [""] : [
                    for pool in strcontains(resource, "{USER_POOL}") ? local.user_pools : [""] :
                    replace(replace(replace(replace(resource, "{CLUSTER}", cluster), "{SERVICE}", service), "{LOAD_BALANCER}", balancer), "{USER_POOL}", pool)
                  ]
                ]
              ]
            ]
          ])
        })
      ]
    }
  }

  # Placeholders that stand for one thing, and the one condition that lists clusters. No name can hold a brace.
  filled = {
    for policy in ["worker", "people"] : policy => {
      for cell, each in local.cells : cell => replace(replace(replace(replace(replace(replace(replace(replace(
        file("${path.module}/${policy}-policy.json"),
        "\"arn:{PARTITION}:ecs:{REGION}:{ACCOUNT}:cluster/{CLUSTER}\"", join(", ", [for arn in local.cluster_arns : jsonencode(arn)])),
        "{PARTITION}", local.partition), "{REGION}", local.region), "{ACCOUNT}", local.account),
      "{DEAD_LETTERS}", "${each.name}-dead-letters"), "{QUEUE}", each.name), "{TABLE}", each.name), "{BUS}", var.event_bus_name)
    }
  }

  # What an observer is denied.
  changes = { for cell in keys(local.cells) : cell => [for statement in local.policies.worker[cell] : statement.Action if startswith(statement.Sid, "Rollback")] }

  # A statement that speaks of nothing that is here is left out.
  worker_statements = {
    for cell, statements in local.policies.worker : cell => concat(
      [
        for statement in statements : statement
        if length(statement.Resource) > 0 && (var.table || statement.Sid != "State") && !(var.observe_only && startswith(statement.Sid, "Rollback"))
      ],
      [for actions in [flatten(local.changes[cell])] : { Sid = "ChangeNothing", Effect = "Deny", Action = actions, Resource = ["*"] } if var.observe_only],
      [for key in compact([var.kms_key_arn]) : { Sid = "Key", Effect = "Allow", Action = local.key_actions, Resource = [key] }],
    )
  }

  # What SQS and DynamoDB do with the key on the worker's behalf.
  key_actions = concat(["kms:Decrypt"], var.table ? ["kms:Encrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"] : [])

  people_statements = {
    for cell, statements in local.policies.people : cell => concat(
      [for statement in local.policies.worker[cell] : statement if startswith(statement.Sid, "Read")],
      statements,
    )
  }
}

resource "aws_iam_role" "worker" {
  for_each = local.cells

  name               = each.value.name
  description        = var.observe_only ? "The guardian ${each.value.name}, which only observes" : "The guardian ${each.value.name}"
  assume_role_policy = local.trust

  tags = local.tags
}

resource "aws_iam_role_policy" "worker" {
  for_each = local.cells

  name   = "guard"
  role   = aws_iam_role.worker[each.key].id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.worker_statements[each.key] })
}

# For whoever starts the tasks: logs, and the image when it lies in ECR.

locals {
  # Only tasks of this account and Region get a role.
  trust = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TasksOfThisAccount"
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnLike      = { "aws:SourceArn" = "arn:${local.partition}:ecs:${local.region}:${local.account}:*" }
      }
    }]
  })

  # Account, Region and name, when it is an image of ECR.
  repository = regexall("^([0-9]{12})\\.dkr\\.ecr\\.([a-z0-9-]+)\\.amazonaws\\.com(?:\\.cn)?/([^:@]+)", var.image)

  start_statements = concat(
    [{
      Sid      = "Logs"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = [for group in values(aws_cloudwatch_log_group.this) : "${group.arn}:*"]
    }],
    [for image in local.repository : {
      Sid      = "Image"
      Effect   = "Allow"
      Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      Resource = ["arn:${local.partition}:ecr:${image[1]}:${image[0]}:repository/${image[2]}"]
    }],
    [for image in local.repository : {
      Sid      = "ImageLogin"
      Effect   = "Allow"
      Action   = ["ecr:GetAuthorizationToken"]
      Resource = ["*"]
    }],
  )
}

resource "aws_iam_role" "start" {
  name               = "${var.name}-start"
  description        = "Starts the tasks of ${var.name}: fetches the image, writes the logs"
  assume_role_policy = local.trust

  tags = local.tags
}

resource "aws_iam_role_policy" "start" {
  name   = "start"
  role   = aws_iam_role.start.id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.start_statements })
}
