# The replicas. Their cluster is their own: whoever tidies up a guarded one does not take the guardian along.

resource "aws_ecs_cluster" "this" {
  #checkov:skip=CKV_AWS_65:The account's default decides: nothing here reads these metrics, and they are billed one by one
  name = var.name

  tags = local.tags
}

resource "aws_cloudwatch_log_group" "this" {
  for_each = local.cells

  name              = "/taskset-guardian/${each.value.name}"
  retention_in_days = var.log_retention
  kms_key_id        = var.kms_key_arn

  tags = local.tags
}

# Nothing may come in but what reads the metrics; out go calls of AWS.
resource "aws_security_group" "this" {
  name        = var.name
  description = "Replicas of ${var.name}"
  vpc_id      = var.vpc_id

  tags = local.tags
}

resource "aws_vpc_security_group_egress_rule" "aws" {
  security_group_id = aws_security_group.this.id
  description       = "The APIs of AWS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443

  tags = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "scrapers" {
  count = length(var.scraper_security_group_ids)

  security_group_id            = aws_security_group.this.id
  description                  = "Metrics and status"
  referenced_security_group_id = var.scraper_security_group_ids[count.index]
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port

  tags = local.tags
}

locals {
  journal_path = "/data"

  settings = {
    for cell, each in local.cells : cell => merge(var.environment, {
      AWS_REGION                   = local.region
      TASKSET_GUARDIAN_QUEUE_URL   = aws_sqs_queue.events[cell].id
      TASKSET_GUARDIAN_RULE_FILES  = jsonencode(var.rules)
      TASKSET_GUARDIAN_ONLY        = join(",", [for pair in setproduct(var.clusters, each.services) : "${pair[0]}/${pair[1]}"])
      TASKSET_GUARDIAN_STATE       = var.table ? "dynamodb://${aws_dynamodb_table.journal[cell].name}" : "${local.journal_path}/guardian.redb"
      TASKSET_GUARDIAN_LISTEN      = "0.0.0.0:${local.port}"
      TASKSET_GUARDIAN_SWEEP       = var.sweep
      TASKSET_GUARDIAN_ELB_READS   = tostring(floor(var.elb_reads / length(local.cells)))
      TASKSET_GUARDIAN_FLEET_BRAKE = tostring(var.fleet_brake)
      TASKSET_GUARDIAN_EVENT_BUS   = var.event_bus_name
      TASKSET_GUARDIAN_DRY_RUN     = tostring(var.observe_only)
    })
  }
}

resource "aws_ecs_task_definition" "this" {
  for_each = local.cells

  family                   = each.value.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  task_role_arn            = aws_iam_role.worker[each.key].arn
  execution_role_arn       = aws_iam_role.start.arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }

  container_definitions = jsonencode([{
    name                   = "guardian"
    image                  = var.image
    essential              = true
    command                = ["run"]
    user                   = "65532:65532"
    readonlyRootFilesystem = true
    # An orderly end takes 25 s at most.
    stopTimeout     = 60
    environment     = [for name, value in local.settings[each.key] : { name = name, value = value }]
    linuxParameters = { initProcessEnabled = false, capabilities = { drop = ["ALL"], add = [] } }
    portMappings    = [{ containerPort = local.port, hostPort = local.port, protocol = "tcp" }]
    mountPoints     = var.table ? [] : [{ sourceVolume = "journal", containerPath = local.journal_path, readOnly = false }]
    volumesFrom     = []
    systemControls  = []
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this[each.key].name
        awslogs-region        = local.region
        awslogs-stream-prefix = "guardian"
      }
    }
    # Asks /healthz: a standby is healthy, too.
    healthCheck = {
      command     = ["CMD", "taskset-guardian", "healthcheck"]
      interval    = 15
      timeout     = 5
      retries     = 3
      startPeriod = 30
    }
  }])

  # Lives as long as its task.
  dynamic "volume" {
    for_each = var.table ? [] : ["journal"]

    content {
      name = volume.value
    }
  }

  tags = local.tags
}

resource "aws_ecs_service" "this" {
  #checkov:skip=CKV_AWS_333:Only with assign_public_ip, which is off by default; the security group lets nobody in from outside
  for_each = local.cells

  name            = each.value.name
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.this[each.key].arn
  desired_count   = var.replicas
  launch_type     = "FARGATE"
  propagate_tags  = "SERVICE"

  # Replicas that share a table may overlap: the lease says who acts. Without a table nothing does, and two workers must
  # never run at once.
  deployment_minimum_healthy_percent = var.table ? 100 : 0
  deployment_maximum_percent         = var.table ? 200 : 100
  availability_zone_rebalancing      = var.table ? "ENABLED" : "DISABLED"

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.this.id]
    assign_public_ip = var.assign_public_ip
  }

  tags = local.tags

  # A worker that starts without its permissions looks broken for a minute.
  depends_on = [aws_iam_role_policy.worker, aws_iam_role_policy.start, aws_sqs_queue_policy.this]
}
